"""Pixels become tokens in the order that checkpoints were trained in; wrong pixels are refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mono.model import MonoModel, PatchifierConfig
from lightning_mono.model.config import PatchifierKind
from lightning_mono.model.patchifier import build_patchifier
from lightning_mono.model.pixels import pixel_shuffle
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


@pytest.mark.parametrize("kind", ["conv", "linear", "two_conv"])
def test_a_token_sees_its_square_of_pixels_only(kind: PatchifierKind) -> None:
    torch.manual_seed(0)
    config = PatchifierConfig(image_size=16, patch_size=4, width=6, merge=2, kind=kind)
    patchifier = build_patchifier(config, 16)
    pixels = torch.randn(1, 3, 16, 16)
    changed = pixels.clone()
    changed[:, :, 8:, :8] += 1  # lower left: token 2 of 4
    with torch.no_grad():
        same = (patchifier(pixels) == patchifier(changed)).all(-1)[0]
    assert same.tolist() == [True, True, False, True]


def test_sizes_follow_from_the_config() -> None:
    config = PatchifierConfig(image_size=448, patch_size=14, width=8, merge=2)
    assert (config.grid, config.tokens_per_tile) == (16, 256)
    assert build_patchifier(config, 4)(torch.zeros(0, 3, 448, 448)).shape == (0, 256, 4)
    with pytest.raises(ValueError, match=r"100.*28"):
        PatchifierConfig(image_size=100, patch_size=14, width=8, merge=2)


def _of_kind(kind: PatchifierKind) -> MonoModel:
    config = tiny_config()
    assert config.patchifier is not None
    return tiny_model(replace(config, patchifier=replace(config.patchifier, kind=kind)))


def test_linear_patches_are_one_matrix_product_a_square() -> None:
    config = PatchifierConfig(image_size=12, patch_size=2, width=1, merge=3, kind="linear")
    patchifier = build_patchifier(config, 5)
    pixels = torch.randn(2, 3, 12, 12)
    kernel = patchifier.last.weight.view(5, 6, 6, 3).permute(0, 3, 1, 2)
    as_conv = F.conv2d(pixels, kernel, patchifier.last.bias, stride=6)
    torch.testing.assert_close(patchifier(pixels), as_conv.flatten(2).mT)


def test_two_convolutions_read_squares_row_by_row() -> None:
    config = PatchifierConfig(image_size=16, patch_size=4, width=6, merge=2, kind="two_conv")
    patchifier = build_patchifier(config, 8)
    pixels = torch.randn(1, 3, 16, 16)
    alone = torch.cat(
        [patchifier(pixels[:, :, r : r + 8, c : c + 8]) for r in (0, 8) for c in (0, 8)], dim=1
    )
    torch.testing.assert_close(patchifier(pixels), alone)


def test_no_other_kinds() -> None:
    with pytest.raises(ValueError, match="'vae'; there are conv, linear, two_conv, vit"):
        PatchifierConfig(image_size=16, patch_size=4, width=6, kind="vae")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["linear", "two_conv"])
def test_a_saved_model_of_another_kind_is_the_same_model(
    kind: PatchifierKind, tmp_path: Path
) -> None:
    model = _of_kind(kind)
    model.save_pretrained(tmp_path)
    again = MonoModel.from_pretrained(tmp_path)
    assert again.config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    vision = json.loads((tmp_path / "config.json").read_text())["vision_config"]
    assert vision["model_type"] == "mono_patchifier", (
        "the official code must not read it as its own"
    )


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
