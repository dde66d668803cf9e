"""Image files to square tiles, as InternVL cuts them.

A picture larger than one tile is resized to the grid of tiles whose aspect ratio is nearest to its
own, cut row by row, and may be followed by a thumbnail of the whole (InternVL 1.5, section 3.2).
Unlike InternVL, which drops both, transparency lies over white and a camera's rotation is undone.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageOps

from lightning_mono.data.sample import SampleError
from lightning_mono.errors import DataError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_PIXELS = 64_000_000  # 192 MB of RGB; more is a mistake or a decompression bomb

# What Pillow raises for damage; a TypeError comes from a camera's notes of the wrong type.
_UNREADABLE = (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error, zlib.error)


def decode(image: bytes | Image.Image, name: str) -> Image.Image:
    """Decodes an image file to upright RGB, transparency over white.

    Args:
        image: the encoded file, or a picture, which may not have been loaded yet.
        name: the sample's id, for the message.

    Raises:
        SampleError: not an image, damaged, truncated, or more than ``MAX_PIXELS``.
    """
    try:
        opened = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image
        if opened.width * opened.height > MAX_PIXELS:
            size = f"{opened.width}x{opened.height}"
            raise SampleError("too large", f"{name}: image of {size} pixels is too large")
        return _on_white(ImageOps.exif_transpose(opened))
    except Image.DecompressionBombError as error:
        raise SampleError("too large", f"{name}: image is too large") from error
    except _UNREADABLE as error:
        reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else error
        raise SampleError("unreadable image", f"{name}: cannot read image: {reason}") from error


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode.startswith("I"):  # 16 bits a pixel: Pillow would clip, not scale
        high = np.asarray(image) >> 8
        return Image.fromarray(high.clip(0, 255).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


@dataclass(frozen=True)
class ImageProcessor:
    """Cuts images into tiles and normalises them.

    Attributes:
        size: side of a tile in pixels.
        max_tiles: most tiles of a sample, without thumbnails; its images share them.
        thumbnail: whether a picture of several tiles is followed by one of the whole.
        min_tiles: fewest tiles of a picture, unless its share of ``max_tiles`` is less: then one.
        mean: subtracted from each colour channel, which runs from 0 to 1.
        std: divides each colour channel.

    Raises:
        DataError: ``min_tiles`` is more than ``max_tiles``, or less than 1.
    """

    size: int
    max_tiles: int = 1
    thumbnail: bool = False
    min_tiles: int = 1
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not 1 <= self.min_tiles <= self.max_tiles:
            raise DataError(
                f"image: min_tiles {self.min_tiles} is not between 1 and max_tiles {self.max_tiles}"
            )

    def grid(self, width: int, height: int, images: int = 1) -> tuple[int, int]:
        """Columns and rows of tiles for a picture of this size in a sample of ``images``."""
        ratio, area = width / height, width * height
        best, least = (1, 1), float("inf")
        for columns, rows in _grids(self.min_tiles, self.max_tiles // images):
            difference = abs(ratio - columns / rows)
            roomy = area > 0.5 * self.size**2 * columns * rows
            if difference < least or (difference == least and roomy):
                best, least = (columns, rows), difference
        return best

    def tile_count(self, width: int, height: int, images: int = 1) -> int:
        """Tiles of a picture of this size, its thumbnail included."""
        columns, rows = self.grid(width, height, images)
        count = columns * rows
        return count + (self.thumbnail and count > 1)

    def tiles(self, image: bytes | Image.Image, name: str = "image", images: int = 1) -> np.ndarray:
        """Cuts one picture.

        Args:
            image: an encoded file, or a picture.
            name: the sample's id, for messages.
            images: how many pictures the sample has; they share ``max_tiles``.

        Returns:
            (tiles, size, size, 3) uint8.

        Raises:
            DataError: the file cannot be read.
        """
        picture = decode(image, name)
        columns, rows = self.grid(*picture.size, images)
        whole = np.asarray(self._resized(picture, columns, rows))
        tiles = whole.reshape(rows, self.size, columns, self.size, 3).swapaxes(1, 2)
        tiles = tiles.reshape(rows * columns, self.size, self.size, 3)
        if self.thumbnail and len(tiles) > 1:
            tiles = np.concatenate([tiles, np.asarray(self._resized(picture, 1, 1))[None]])
        return np.ascontiguousarray(tiles)

    def normalise(self, tiles: np.ndarray) -> np.ndarray:
        """(tiles, size, size, 3) uint8 to (tiles, 3, size, size) float32."""
        std = np.asarray(self.std, np.float32)
        scale, shift = 1 / (255 * std), np.asarray(self.mean, np.float32) / std
        first = np.ascontiguousarray(tiles.transpose(0, 3, 1, 2))  # while a channel is a byte
        pixels: np.ndarray = first * scale[:, None, None]
        pixels -= shift[:, None, None]
        return pixels

    def stack(self, images: Sequence[bytes | Image.Image], name: str = "image") -> np.ndarray:
        """All pictures of one sample, (tiles, size, size, 3) uint8; none gives 0 tiles."""
        if not images:
            return np.zeros((0, self.size, self.size, 3), np.uint8)
        return np.concatenate([self.tiles(image, name, len(images)) for image in images])

    def _resized(self, picture: Image.Image, columns: int, rows: int) -> Image.Image:
        size = (columns * self.size, rows * self.size)
        return picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC)


@lru_cache
def _grids(min_tiles: int, max_tiles: int) -> tuple[tuple[int, int], ...]:
    """All (columns, rows) of so many tiles, small ones first.

    Grids of as many tiles stay in the order of the set, as in InternVL. It decides nothing while
    ``min_tiles`` is 1: a picture half-way between two of them is nearer to a third (tried up to
    200 tiles). Otherwise it may: 5:4 is half-way between 1x2 and 2x1, and 1x1 is too few.
    """
    sides = range(min_tiles, max_tiles + 1)
    grids = {
        (columns, rows)
        for most in sides
        for columns in range(1, most + 1)
        for rows in range(1, most + 1)
        if min_tiles <= columns * rows <= max_tiles
    }
    return tuple(sorted(grids, key=lambda grid: grid[0] * grid[1]))
