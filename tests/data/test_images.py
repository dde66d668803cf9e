"""Tiling as InternVL does it, and every odd kind of picture file."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lightning_mono.data import images
from lightning_mono.data.images import ImageProcessor, decode
from lightning_mono.errors import DataError

from .conftest import png

sides = st.integers(1, 2000)


def internvl_grid(width: int, height: int, max_tiles: int, size: int) -> tuple[int, int]:
    """The choice of InternVL's ``dynamic_preprocess``, written as it is published."""
    target_ratios = {
        (i, j)
        for n in range(1, max_tiles + 1)
        for i in range(1, n + 1)
        for j in range(1, n + 1)
        if 1 <= i * j <= max_tiles
    }
    best_ratio_diff, best_ratio = float("inf"), (1, 1)
    for ratio in sorted(target_ratios, key=lambda x: x[0] * x[1]):
        ratio_diff = abs(width / height - ratio[0] / ratio[1])
        if ratio_diff < best_ratio_diff:
            best_ratio_diff, best_ratio = ratio_diff, ratio
        elif ratio_diff == best_ratio_diff and (
            width * height > 0.5 * size * size * ratio[0] * ratio[1]
        ):
            best_ratio = ratio
    return best_ratio


@given(sides, sides, st.integers(1, 12), st.sampled_from([56, 448]))
def test_the_grid_is_internvls(width: int, height: int, max_tiles: int, size: int) -> None:
    expected = internvl_grid(width, height, max_tiles, size)
    assert ImageProcessor(size, max_tiles).grid(width, height) == expected


@given(sides, sides, st.integers(1, 12), st.booleans(), st.integers(1, 4))
def test_the_images_of_a_sample_share_the_tiles(
    width: int, height: int, max_tiles: int, thumbnail: bool, count: int
) -> None:
    processor = ImageProcessor(8, max_tiles, thumbnail)
    columns, rows = processor.grid(width, height, count)
    assert columns * rows <= max(1, max_tiles // count)
    tiles = processor.tile_count(width, height, count)
    assert tiles == columns * rows + int(thumbnail and columns * rows > 1)


def test_tiles_are_cut_row_by_row_and_the_thumbnail_is_last() -> None:
    picture = np.zeros((16, 24, 3), np.uint8)
    for tile in range(6):
        row, column = divmod(tile, 3)
        picture[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 40 * tile
    tiles = ImageProcessor(8, 6, thumbnail=True).tiles(Image.fromarray(picture))
    assert tiles.shape == (7, 8, 8, 3)
    assert [int(tile.mean()) for tile in tiles[:6]] == [0, 40, 80, 120, 160, 200]
    assert tiles[6].mean() == pytest.approx(100, abs=8)


def test_pixels_are_normalised_by_channel() -> None:
    processor = ImageProcessor(8)
    red = processor(png("red"))
    assert red.shape == (1, 3, 8, 8)
    assert red.dtype == np.float32
    for channel, value in enumerate((1.0, 0.0, 0.0)):
        expected = (value - processor.mean[channel]) / processor.std[channel]
        assert red[0, channel] == pytest.approx(expected, abs=1e-5)


def test_no_image_gives_no_tile() -> None:
    assert ImageProcessor(8).stack([]).shape == (0, 8, 8, 3)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixel(data: bytes) -> tuple[int, ...]:
    return tuple(np.asarray(decode(data, "s"))[0, 0].tolist())


def test_transparency_lies_over_white() -> None:
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    half = Image.new("RGBA", (2, 2), (255, 0, 0, 128))
    gray = Image.new("LA", (2, 2), (0, 0))
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    assert pixel(encoded(clear)) == (255, 255, 255)
    assert pixel(encoded(half)) == pytest.approx((255, 127, 127), abs=1)
    assert pixel(encoded(gray)) == (255, 255, 255)
    assert pixel(encoded(palette)) == (255, 0, 0)
    assert pixel(encoded(palette, transparency=0)) == (255, 255, 255)
    assert pixel(encoded(Image.new("RGB", (2, 2), "red"), transparency=(255, 0, 0))) == (
        255,
        255,
        255,
    )


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    deep = Image.fromarray(np.full((2, 2), 0x8000, np.uint16))
    assert pixel(encoded(deep)) == (128, 128, 128)


def test_other_kinds_of_files() -> None:
    assert pixel(encoded(Image.new("L", (2, 2), 7))) == (7, 7, 7)
    assert pixel(encoded(Image.new("1", (2, 2), 1))) == (255, 255, 255)
    red = pixel(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert red == pytest.approx((254, 0, 0), abs=3)
    frames = [Image.new("RGB", (2, 2), color) for color in ("red", "blue")]
    animated = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixel(animated) == (255, 0, 0)


def test_pictures_are_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    sideways = encoded(Image.new("RGB", (30, 20)), "JPEG", exif=exif)
    assert decode(sideways, "s").size == (20, 30)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an image"),
        (b"GIF89a and then nothing like it", "cannot read image"),
        (png(size=(64, 64))[:-30], "cannot read image"),
        (png(size=(64, 64))[:40], "cannot read image"),
    ],
)
def test_damage_is_one_line_that_names_the_sample(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=rf"^train/7: .*{reason}") as caught:
        decode(data, "train/7")
    assert "\n" not in str(caught.value)


def test_too_many_pixels_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 99)
    assert decode(png(size=(11, 9)), "s").size == (11, 9)
    with pytest.raises(DataError, match="s: image of 10x10 pixels is too large"):
        decode(png(size=(10, 10)), "s")
