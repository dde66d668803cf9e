"""Which token stands for which rectangle: told by the pixels that reach it, for every tiling."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from lightning_mono.attention.paint import enlarged
from lightning_mono.attention.places import Mosaic, Segment, segments
from lightning_mono.data.images import ImageProcessor
from lightning_mono.model import PatchifierConfig
from lightning_mono.model.pixels import pixel_shuffle

PATCH, MERGE, GRID = 4, 2, 3
SIZE = PATCH * MERGE * GRID

mosaics = st.fixed_dictionaries(
    {
        "width": st.integers(90, 400),
        "height": st.integers(90, 400),
        "most": st.integers(1, 12),
        "thumbnail": st.booleans(),
        "order": st.sampled_from(["v1", "v2"]),
        "pick": st.integers(0, 10**6),
    }
)


def _of(drawn: dict) -> tuple[Mosaic, ImageProcessor, int]:
    patchifier = PatchifierConfig(SIZE, PATCH, 8, MERGE, order=drawn["order"])
    processor = ImageProcessor(SIZE, drawn["most"], drawn["thumbnail"])
    mosaic = Mosaic.of((drawn["width"], drawn["height"]), processor, patchifier)
    return mosaic, processor, drawn["pick"] % mosaic.tokens


def _brightness(processor: ImageProcessor, image: Image.Image, order: str) -> np.ndarray:
    """How bright what each token sees is, as the real tiles and the real pixel shuffle give it."""
    tiles = torch.tensor(processor.tiles(image)).float().mean(-1)
    patches = tiles.reshape(len(tiles), GRID * MERGE, PATCH, GRID * MERGE, PATCH).mean((2, 4))
    return pixel_shuffle(patches[..., None], MERGE, order).mean(-1).flatten().numpy()


@settings(max_examples=150)
@given(mosaics)
def test_what_is_painted_into_a_tokens_box_reaches_that_token(drawn: dict) -> None:
    mosaic, processor, token = _of(drawn)
    left, top, right, bottom = mosaic.box(token)
    assume(right - left >= 6 and bottom - top >= 6)  # pixels enough for a box to have an inside
    image = Image.new("RGB", (mosaic.width, mosaic.height))
    inside = (round(left), round(top), round(right), round(bottom))
    image.paste((255, 255, 255), inside)
    seen = _brightness(processor, image, drawn["order"])
    assert len(seen) == mosaic.tokens
    own = seen[: mosaic.columns * mosaic.rows * GRID**2]
    is_thumbnail = token >= len(own)
    among = seen[len(own) :] if is_thumbnail else own
    offset = len(own) if is_thumbnail else 0
    assert int(among.argmax()) + offset == token
    assert among.max() > 150
    assert np.delete(among, token - offset).max() < 110


@settings(max_examples=150)
@given(mosaics)
def test_attention_to_one_token_lights_exactly_its_square(drawn: dict) -> None:
    mosaic, _, token = _of(drawn)
    row = np.zeros(mosaic.tokens, np.float32)
    row[token] = 0.25
    heat = mosaic.heat(row)
    assert heat.whole.sum() == pytest.approx(0.25)
    of_thumbnail = token >= mosaic.columns * mosaic.rows * GRID**2
    cells = heat.thumbnail if of_thumbnail else heat.tiles
    assert (heat.tiles.any(), heat.thumbnail is not None and heat.thumbnail.any()) == (
        not of_thumbnail,
        of_thumbnail,
    )
    left, top, right, bottom = mosaic.box(token)
    x, y = np.arange(mosaic.width) + 0.5, np.arange(mosaic.height) + 0.5
    inside = ((y > top) & (y < bottom))[:, None] & ((x > left) & (x < right))[None, :]
    edge = np.zeros_like(inside)  # pixels whose centre lies on an edge may fall on either side
    edge |= (np.isclose(y, top) | np.isclose(y, bottom))[:, None]
    edge |= (np.isclose(x, left) | np.isclose(x, right))[None, :]
    for drawn_cells in (cells, heat.whole):
        lit = enlarged(drawn_cells, mosaic.height, mosaic.width) > 0
        assert (lit == inside)[~edge].all()


@settings(max_examples=60)
@given(mosaics)
def test_tiles_and_thumbnail_each_cover_the_picture_once(drawn: dict) -> None:
    mosaic, processor, _ = _of(drawn)
    size = (mosaic.width, mosaic.height)
    assert mosaic.tiles == processor.tile_count(*size)
    boxes = [mosaic.box(token) for token in range(mosaic.tokens)]
    own = mosaic.columns * mosaic.rows * GRID**2
    area = mosaic.width * mosaic.height
    for part in (boxes[:own], boxes[own:]):
        if part:
            assert len(set(part)) == len(part)
            assert sum((r - a) * (b - t) for a, t, r, b in part) == pytest.approx(area)
    with pytest.raises(IndexError, match=f"token {mosaic.tokens} is none"):
        mosaic.box(mosaic.tokens)


def test_weights_of_another_number_are_refused() -> None:
    mosaic = Mosaic(10, 10, 1, 1, False, 2)
    with pytest.raises(ValueError, match=r"weights of 4 tokens are needed, got \(3,\)"):
        mosaic.heat(np.zeros(3, np.float32))


@given(st.lists(st.sampled_from(["system", "image", "question"])))
def test_segments_are_the_runs_of_a_kind(kinds: list[str]) -> None:
    found = segments(kinds)
    spelled = [segment.kind for segment in found for _ in range(segment.start, segment.stop)]
    assert spelled == kinds
    assert all(a.kind != b.kind for a, b in pairwise(found))
    assert all(isinstance(segment, Segment) and segment.start < segment.stop for segment in found)
