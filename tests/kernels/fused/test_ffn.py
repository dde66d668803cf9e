"""The fused FFN, interpreted on the CPU: the numbers of ``masked_dense``."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_mono.kernels import gathered, masked_dense
from lightning_mono.kernels.fused import tuning
from lightning_mono.kernels.fused.ffn import RECOMPUTE, SAVE, Saving, ffn
from lightning_mono.kernels.fused.launch import Tile
from lightning_mono.kernels.fused.tuning import Tiles
from torch import nn

from lightning_mono.testing import tiny_config, tiny_model

from .ffns import HIDDEN, LAYOUTS, MIXED, close, in_fp32, layout_of, rows_of, run, swiglus


@pytest.mark.parametrize("saving", [SAVE, RECOMPUTE])
@pytest.mark.parametrize("mask", LAYOUTS.values(), ids=list(LAYOUTS))
def test_fp32_equals_the_oracle(mask: list[bool], saving: Saving) -> None:
    pair, x = swiglus(), rows_of(mask)
    close(run(ffn, x, mask, pair, saving), run(masked_dense, x, mask, pair), 1e-5)


@pytest.mark.parametrize("saving", [SAVE, RECOMPUTE])
@pytest.mark.parametrize("mask", [MIXED, LAYOUTS["one visual token"]])
def test_bf16_stays_near_the_fp32_oracle(mask: list[bool], saving: Saving) -> None:
    pair, x = swiglus(torch.bfloat16, torch.bfloat16), rows_of(mask, dtype=torch.bfloat16)
    ours = run(ffn, x, mask, pair, saving)
    assert {t.dtype for t in ours if t is not None} == {torch.bfloat16}
    close(ours, run(masked_dense, x.float(), mask, in_fp32(pair)), 2e-2)


@settings(max_examples=12)
@given(mask=st.lists(st.booleans(), min_size=1, max_size=40), saved=st.booleans())
def test_any_layout_equals_the_oracle(mask: list[bool], saved: bool) -> None:
    pair, x = swiglus(hidden=16, ffn_size=16), rows_of(mask, 16)
    close(run(ffn, x, mask, pair, Saving(saved)), run(masked_dense, x, mask, pair), 1e-5)


@pytest.mark.parametrize("saving", [SAVE, RECOMPUTE])
@pytest.mark.parametrize("tile", [Tile(16, 32, 32, 1, 1), Tile(32, 64, 64, 1, 1)])
def test_blocks_need_not_divide_the_sizes(
    tile: Tile, saving: Saving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "INTERPRETED", Tiles(*[tile] * 6))
    pair, x = swiglus(hidden=48, ffn_size=80), rows_of(MIXED, 48)
    close(run(ffn, x, MIXED, pair, saving), run(masked_dense, x, MIXED, pair), 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_modalities_may_differ_in_dtype(dtype: torch.dtype) -> None:
    """Experts in fp32 beside a frozen backbone in bf16, with activations in either."""
    pair, x = swiglus(torch.bfloat16, torch.float32), rows_of(MIXED, dtype=dtype)
    pair[0].requires_grad_(False)
    for saving in (SAVE, RECOMPUTE):
        ours = run(ffn, x, MIXED, pair, saving)
        kinds = [t.dtype for t in ours if t is not None]
        assert kinds == [dtype] * 2 + [torch.float32] * 3
        within = 1e-5 if dtype == torch.float32 else 2e-2
        close(ours, run(masked_dense, x.float(), MIXED, in_fp32(pair)), within)


def test_strides_are_followed() -> None:
    """Input, output gradient and weights as views: transposed, expanded, a part of each row."""
    pair = swiglus()
    for linear in (m for swiglu in pair for m in swiglu.children()):
        assert isinstance(linear, nn.Linear)
        wide = torch.cat([linear.weight.detach(), torch.full_like(linear.weight, 9.0)], dim=1)
        linear.weight.data = wide[:, : linear.in_features]
        assert not linear.weight.is_contiguous()
    x = torch.randn(HIDDEN, 2 * len(MIXED)).t()[::2]
    layout = layout_of(MIXED)
    gradients = []
    for kernel in (ffn, masked_dense):
        leaf = x.detach().requires_grad_()
        assert leaf.stride() == (2, 2 * len(MIXED))
        y = kernel(leaf, layout, *pair)
        gradients.append([y, *torch.autograd.grad(y.sum(), [leaf, *pair[1].parameters()])])
    close(*gradients, 1e-5)


@pytest.mark.parametrize("text_trains", [True, False])
@pytest.mark.parametrize("visual_trains", [True, False])
def test_frozen_weights_get_no_gradient(text_trains: bool, visual_trains: bool) -> None:
    pair = swiglus()
    pair[0].requires_grad_(text_trains)
    pair[1].requires_grad_(visual_trains)
    x = rows_of(MIXED)
    ours = run(ffn, x, MIXED, pair)
    assert [g is not None for g in ours[2:]] == [text_trains] * 3 + [visual_trains] * 3
    close(ours, run(masked_dense, x, MIXED, pair), 1e-5)


@pytest.mark.parametrize("name", ["gate", "up", "down"])
def test_one_weight_may_train_alone(name: str) -> None:
    pair, x = swiglus(), rows_of(MIXED)
    for swiglu in pair:
        swiglu.requires_grad_(False)
    pair[1].get_submodule(name).requires_grad_(True)
    close(run(ffn, x, MIXED, pair), run(masked_dense, x, MIXED, pair), 1e-5)


@pytest.mark.parametrize("mask", [[], [False] * 3, [True] * 3])
def test_a_trainable_modality_without_tokens_gets_zeros(mask: list[bool]) -> None:
    pair = swiglus()
    y = ffn(rows_of(mask), layout_of(mask), *pair)
    assert y.shape == (len(mask), HIDDEN)
    y.sum().backward()
    for swiglu, present in zip(pair, (False in mask, True in mask), strict=True):
        for weight in swiglu.parameters():
            assert weight.grad is not None
            assert bool(weight.grad.any()) == present


def test_a_token_reaches_no_other_weights_than_its_own() -> None:
    """Row 0, which stands in for rows that a tile has left over, is text and not a number."""
    pair, x = swiglus(), rows_of(MIXED)
    visual = run(ffn, x, MIXED, pair)[-3:]
    x[0] = torch.nan
    _, _, *text, gate, up, down = run(ffn, x, MIXED, pair)
    assert all(g is not None and g.isnan().any() for g in text)
    close([gate, up, down], visual, 0)


def test_autocast_computes_in_its_dtype_and_learns_in_the_weights() -> None:
    pair, x = swiglus(), rows_of(MIXED)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = (run(k, x, MIXED, pair) for k in (ffn, gathered))
    kinds = [t.dtype for t in ours if t is not None]
    assert kinds == [t.dtype for t in theirs if t is not None]
    assert kinds == [torch.bfloat16] + [torch.float32] * 7
    # The interpreter cuts fp32 off to bf16 where a GPU rounds: errors of all weights add up.
    close(ours, run(masked_dense, x, MIXED, pair), 3e-2)


def test_row_numbers_may_be_int32() -> None:
    pair, layout, x = swiglus(), layout_of(MIXED), rows_of(MIXED)
    short = copy.deepcopy(layout)
    for rows in (short.text, short.visual):
        object.__setattr__(rows, "index", rows.index.int())
    torch.testing.assert_close(ffn(x, short, *pair), ffn(x, layout, *pair), rtol=0, atol=0)


def test_a_whole_model_agrees() -> None:
    """In place of every FFN's kernel, through norms, attention and residuals."""
    model = tiny_model(tiny_config(ffn_size=32))
    ids = torch.tensor([[5, 3, 3, 3, 3, 7, 9], [8, 9, 10, 3, 3, 3, 3]])
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    results = []
    for kernel in (gathered, ffn):
        model.zero_grad()
        for layer in model.layers:
            layer.ffn.kernel = kernel
        logits = model(ids, pixels).logits
        logits.square().mean().backward()
        results.append([logits.detach(), *(p.grad for p in model.parameters())])
    close(results[1], results[0], 1e-5)
