"""Tiling as InternVL does it, and every odd kind of picture file."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from contextlib import suppress
from fractions import Fraction
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from lightning_mono.data import images
from lightning_mono.data.images import ImageProcessor, decode
from lightning_mono.errors import DataError

from .conftest import png

sides = st.integers(1, 2000)


@cache
def target_ratios(min_tiles: int, max_tiles: int) -> list[tuple[int, int]]:
    ratios = {
        (i, j)
        for n in range(min_tiles, max_tiles + 1)
        for i in range(1, n + 1)
        for j in range(1, n + 1)
        if min_tiles <= i * j <= max_tiles
    }
    return sorted(ratios, key=lambda x: x[0] * x[1])


def internvl_grid(
    width: int, height: int, max_tiles: int, size: int, min_tiles: int = 1
) -> tuple[int, int]:
    """The choice of InternVL's ``dynamic_preprocess``, written as it is published."""
    best_ratio_diff, best_ratio = float("inf"), (1, 1)
    for ratio in target_ratios(min_tiles, max_tiles):
        ratio_diff = abs(width / height - ratio[0] / ratio[1])
        if ratio_diff < best_ratio_diff:
            best_ratio_diff, best_ratio = ratio_diff, ratio
        elif ratio_diff == best_ratio_diff and (
            width * height > 0.5 * size * size * ratio[0] * ratio[1]
        ):
            best_ratio = ratio
    return best_ratio


limits = st.integers(1, 40).flatmap(lambda most: st.tuples(st.integers(1, most), st.just(most)))


@given(sides, sides, limits, st.sampled_from([56, 448]), st.integers(1, 5))
def test_the_grid_is_internvls(
    width: int, height: int, limits: tuple[int, int], size: int, images: int
) -> None:
    least, most = limits
    expected = internvl_grid(width, height, most // images, size, least)
    processor = ImageProcessor(size, most, min_tiles=least)
    assert processor.grid(width, height, images) == expected


@pytest.mark.parametrize(("least", "most"), [(1, 6), (1, 12), (2, 6), (2, 2), (1, 20), (6, 14)])
def test_the_grid_is_internvls_where_two_are_as_near(least: int, most: int) -> None:
    """At every midpoint between neighbouring ratios, and on both sides of the rule of area."""
    size = 56
    processor = ImageProcessor(size, most, min_tiles=least)
    grids = [(i, j) for i in range(1, most + 1) for j in range(1, most // i + 1) if i * j >= least]
    ratios = sorted({Fraction(i, j) for i, j in grids})
    middles = [(a + b) / 2 for a, b in pairwise(ratios)]
    decided = set()
    for middle in [*middles, *ratios]:
        areas = {0.5 * size**2 * tiles for tiles in range(least, most + 1)}
        scales = {(area / (middle.numerator * middle.denominator)) ** 0.5 for area in areas}
        for scale in {max(1, int(s) + step) for s in scales for step in (-1, 0, 1, 2)}:
            width, height = middle.numerator * scale, middle.denominator * scale
            expected = internvl_grid(width, height, most, size, least)
            assert processor.grid(width, height) == expected
            decided.add((middle, expected))
    assert len(decided) > len(middles) + len(ratios)  # the area decided some of them


@pytest.mark.parametrize("most", [1, 4, 6, 12, 24])
def test_the_grid_is_internvls_from_narrow_to_wide(most: int) -> None:
    processor = ImageProcessor(448, most)
    for short in (1, 7, 97, 448, 633):
        for twentieths in range(20, 401):
            for long in {short * twentieths // 20, short * twentieths // 20 + 1}:
                for width, height in ((short, long), (long, short)):
                    expected = internvl_grid(width, height, most, 448)
                    assert processor.grid(width, height) == expected


def test_a_tie_of_as_many_tiles_needs_a_least_number() -> None:
    def tied(least: int, most: int) -> set[Fraction]:
        """Ratios as near to two grids of as many tiles, and to no grid nearer."""
        grids = [(i, j) for i in range(1, most + 1) for j in range(1, most // i + 1)]
        tiles: dict[Fraction, set[int]] = {}
        for i, j in grids:
            if i * j >= least:
                tiles.setdefault(Fraction(i, j), set()).add(i * j)
        pairs = pairwise(sorted(tiles))
        return {(a + b) / 2 for a, b in pairs if tiles[a] & tiles[b]}

    assert not any(tied(1, most) for most in range(1, 61))
    assert tied(2, 3) == {Fraction(5, 4)}


@pytest.mark.parametrize(("least", "most"), [(3, 2), (0, 2), (-1, 1), (1, 0)])
def test_impossible_limits_are_one_line(least: int, most: int) -> None:
    with pytest.raises(DataError, match=r"^image: min_tiles .* is not between 1 and max_tiles"):
        ImageProcessor(8, most, min_tiles=least)


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


def noise(width: int, height: int, channels: int = 3) -> np.ndarray:
    generator = np.random.default_rng(width * 1000 + height)
    return generator.integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize(
    "size", [(100, 40), (33, 90), (56, 56), (1, 50), (50, 1), (1, 1), (112, 56), (300, 299)]
)
@pytest.mark.parametrize("thumbnail", [False, True])
def test_pixels_are_internvls(size: tuple[int, int], thumbnail: bool) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    picture = Image.fromarray(noise(*size))
    columns, rows = internvl_grid(*size, 6, 56)
    resized = picture.resize((56 * columns, 56 * rows))
    cut = [
        resized.crop((56 * c, 56 * r, 56 * c + 56, 56 * r + 56))
        for r in range(rows)
        for c in range(columns)
    ]
    if thumbnail and len(cut) > 1:
        cut.append(picture.resize((56, 56)))
    resize = transforms.Resize((56, 56), transforms.InterpolationMode.BICUBIC)
    scale = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    transform = transforms.Compose([resize, transforms.ToTensor(), scale])
    expected = np.stack([transform(tile).numpy() for tile in cut])
    processor = ImageProcessor(56, 6, thumbnail)
    pixels = processor.normalise(processor.tiles(encoded(picture)))
    assert pixels.dtype == np.float32
    assert pixels.shape == expected.shape == (processor.tile_count(*size), 3, 56, 56)
    assert np.abs(pixels - expected).max() < 1e-6


def test_pixels_are_normalised_by_channel() -> None:
    processor = ImageProcessor(8)
    red = processor.normalise(processor.tiles(png("red")))
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


MODES = {
    "RGB": ("PNG", "BMP", "TIFF", "WEBP", "JPEG", "GIF"),
    "L": ("PNG", "BMP", "TIFF", "JPEG", "GIF"),
    "P": ("PNG", "BMP", "TIFF", "GIF"),
    "1": ("PNG", "BMP", "TIFF", "GIF"),
    "CMYK": ("TIFF", "JPEG"),
    "RGBA": ("PNG", "TIFF", "WEBP"),
    "LA": ("PNG", "TIFF"),
}


@pytest.mark.parametrize(("mode", "kind"), [(m, k) for m, kinds in MODES.items() for k in kinds])
def test_every_mode_and_kind_of_file_shows_what_pillow_shows(mode: str, kind: str) -> None:
    data = encoded(Image.fromarray(noise(9, 7, 4)).convert("RGB").convert(mode), kind)
    opened = Image.open(io.BytesIO(data))
    assert np.array_equal(decode(data, "s"), opened.convert("RGB"))
    if mode in ("RGBA", "LA"):
        clear = Image.fromarray(noise(9, 7, 4)).convert(mode)
        lossless = {"lossless": True} if kind == "WEBP" else {}
        shown = np.asarray(decode(encoded(clear, kind, **lossless), "s")).astype(float)
        whole = np.asarray(clear.convert("RGBA")).astype(float)
        alpha = whole[..., 3:] / 255
        assert np.abs(shown - (whole[..., :3] * alpha + 255 * (1 - alpha))).max() <= 1


UPRIGHT = {  # what undoes each of the rotations and reflections that a camera notes
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_pictures_are_turned_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(noise(12, 8)), kind, exif=exif, **lossless)
    opened = Image.open(io.BytesIO(data))
    stored = np.asarray(opened) if kind == "JPEG" else noise(12, 8)
    upright = UPRIGHT[orientation](stored)
    assert np.array_equal(decode(data, "s"), upright)
    assert np.array_equal(decode(opened, "s"), upright)  # a picture that was opened elsewhere
    tiles = ImageProcessor(8, 6).tiles(Image.open(io.BytesIO(data)))
    assert np.array_equal(tiles, ImageProcessor(8, 6).tiles(Image.fromarray(upright)))


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


def test_notes_of_the_wrong_type_are_damage() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    data = encoded(Image.new("RGB", (8, 8)), "JPEG", exif=exif)
    tag, resolution = b"\x01\x0e\x00\x02", b"\x01\x1a\x00\x02"  # words in a number's place
    assert data.count(tag) == 1
    data = data.replace(tag, resolution)
    with pytest.raises(DataError, match=r"^s: cannot read image: "):
        decode(data, "s")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@given(data=st.data())
def test_damage_anywhere_is_a_line_or_a_picture(kind: str, data: st.DataObject) -> None:
    whole = bytearray(encoded(Image.fromarray(noise(20, 14)), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(DataError):
            assert decode(cut, "s").mode == "RGB"


def announced(kind: str, width: int, height: int) -> bytes:
    """A file that says it is huge, in so many bytes as say so."""
    small = bytearray(encoded(Image.new("RGB", (16, 16)), kind))
    if kind == "PNG":
        header = b"IHDR" + struct.pack(">II", width, height) + small[24:29]
        small[12:33] = header + struct.pack(">I", zlib.crc32(header))
    elif kind == "GIF":
        small[6:10] = struct.pack("<HH", width, height)
    elif kind == "BMP":
        small[18:26] = struct.pack("<ii", width, height)
    elif kind == "JPEG":
        frame = small.index(b"\xff\xc0")
        small[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(small)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "JPEG"])
@pytest.mark.parametrize("side", [9_000, 60_000])
def test_huge_headers_are_refused_before_the_pixels_are_decoded(
    kind: str, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("was decoded"))
    huge = announced(kind, side, side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match=r"^s: image .*is too large$"):
            decode(huge, "s")


def test_an_animation_is_its_first_picture_and_as_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [Image.new("RGB", (20, 10), color) for color in ("red", "blue", "green")]
    for kind in ("GIF", "WEBP", "PNG"):
        animated = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert pixel(animated) == pytest.approx((255, 0, 0), abs=2)
        with monkeypatch.context() as limited:
            limited.setattr(images, "MAX_PIXELS", 199)
            with pytest.raises(DataError, match="s: image of 20x10 pixels is too large"):
                decode(animated, "s")


def test_too_many_pixels_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 99)
    assert decode(png(size=(11, 9)), "s").size == (11, 9)
    with pytest.raises(DataError, match="s: image of 10x10 pixels is too large"):
        decode(png(size=(10, 10)), "s")
