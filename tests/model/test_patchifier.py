"""Pixels become tokens in the order that checkpoints were trained in; wrong pixels are refused."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mono.model import PatchifierConfig
from lightning_mono.model.patchifier import Patchifier, pixel_shuffle
from lightning_mono.testing import IMAGE, tiny_config, tiny_model


@settings(max_examples=30)
@given(
    order=st.sampled_from(["v1", "v2"]),
    merge=st.integers(1, 3),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    width=st.integers(1, 3),
)
def test_pixel_shuffle_equals_a_loop(
    order: str, merge: int, grid: tuple[int, int], width: int
) -> None:
    rows, columns = grid
    patches = torch.randn(2, rows * merge, columns * merge, width)
    tokens = []
    if order == "v2":
        places = [(r, c) for r in range(rows) for c in range(columns)]
    else:
        places = [(r, c) for c in range(columns) for r in range(rows)]
    for r, c in places:
        square = [
            patches[:, r * merge + i, c * merge + j] for i in range(merge) for j in range(merge)
        ]
        tokens.append(torch.cat(square, dim=-1))
    assert torch.equal(pixel_shuffle(patches, merge, order), torch.stack(tokens, dim=1))


def test_a_token_sees_its_square_of_pixels_only() -> None:
    torch.manual_seed(0)
    patchifier = Patchifier(PatchifierConfig(image_size=16, patch_size=4, width=6, merge=2), 16)
    pixels = torch.randn(1, 3, 16, 16)
    changed = pixels.clone()
    changed[:, :, 8:, :8] += 1  # lower left: token 2 of 4
    with torch.no_grad():
        same = (patchifier(pixels) == patchifier(changed)).all(-1)[0]
    assert same.tolist() == [True, True, False, True]


def test_sizes_follow_from_the_config() -> None:
    config = PatchifierConfig(image_size=448, patch_size=14, width=8, merge=2)
    assert (config.grid, config.tokens_per_tile) == (16, 256)
    assert Patchifier(config, 4)(torch.zeros(0, 3, 448, 448)).shape == (0, 256, 4)
    with pytest.raises(ValueError, match=r"100.*28"):
        PatchifierConfig(image_size=100, patch_size=14, width=8, merge=2)


@pytest.mark.parametrize("shape", [(1, 3, 16, 12), (1, 1, 16, 16), (1, 3, 20, 20), (3, 16, 16)])
def test_wrong_pixel_shapes_are_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    model = tiny_model()
    ids = torch.tensor([[5, IMAGE, IMAGE, IMAGE, IMAGE]])
    with pytest.raises(ValueError, match=r"\(tiles, 3, 16, 16\).*got " + re.escape(str(shape))):
        model(ids, torch.zeros(shape))


@pytest.mark.parametrize("tiles", [0, 1, 3])
def test_wrong_tile_counts_are_refused_with_the_numbers(tiles: int) -> None:
    model = tiny_model()
    ids = torch.tensor([[5] + [IMAGE] * 8 + [6]])
    with pytest.raises(ValueError, match=f"8 image tokens.*{tiles} tiles give {4 * tiles}"):
        model(ids, torch.zeros(tiles, 3, 16, 16))


def test_tiles_are_checked_sample_by_sample() -> None:
    model = tiny_model()
    ids = torch.tensor([[IMAGE] * 8 + [5], [6] * 9])
    pixels = torch.zeros(2, 3, 16, 16)
    model(ids, pixels, tiles_per_sample=torch.tensor([2, 0]))
    with pytest.raises(ValueError, match=r"\[8, 0\].*\[4, 4\]"):
        model(ids, pixels, tiles_per_sample=torch.tensor([1, 1]))


def test_image_tokens_without_a_patchifier_are_refused() -> None:
    model = tiny_model(replace(tiny_config(), patchifier=None))
    with pytest.raises(ValueError, match="no patchifier"):
        model(torch.tensor([[5, IMAGE]]))
