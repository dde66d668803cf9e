"""Random changes of tiles that a model is to see through."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from lightning_mono.data.example import Example
from lightning_mono.data.order import Item


@dataclass(frozen=True)
class Recompression:
    """Every tile as JPEG, in a quality of its own, as in InternVL's fine-tuning (75 to 100).

    The qualities are a pure function of (seed, item), so neither the number of workers nor a
    restart changes them, and a sample has others the next time it comes.

    Attributes:
        low: least quality, 1 to 100.
        high: highest quality, ``low`` to 100.
        seed: of the qualities.
    """

    low: int
    high: int
    seed: int

    def __call__(self, example: Example, item: Item) -> Example:
        """The example with its tiles compressed and decoded again."""
        random = np.random.default_rng((self.seed, *item))
        qualities = random.integers(self.low, self.high + 1, len(example.tiles)).tolist()
        tiles = map(recompressed, example.tiles, qualities)
        return replace(example, tiles=np.array([*tiles], np.uint8).reshape(example.tiles.shape))


def recompressed(tile: np.ndarray, quality: int) -> np.ndarray:
    """What JPEG of a quality (1 to 100) leaves of a tile, (size, size, 3) uint8."""
    file = io.BytesIO()
    Image.fromarray(tile).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))
