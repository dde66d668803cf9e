"""One layer of 4 or 8 bits: what it computes, and what it keeps."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_mono.model.quantised import (
    QuantisedLinear,
)

from .rounding import SCHEMES, linear, rounded


@pytest.mark.parametrize("scheme", SCHEMES)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(2, 50).map(lambda half: 2 * half),
    seed=st.integers(0, 2**16),
    tokens=st.integers(0, 5),
    bias=st.booleans(),
)
@settings(max_examples=40)
def test_a_layer_is_the_product_with_the_rounded_matrix(
    scheme: str, rows: int, columns: int, seed: int, tokens: int, bias: bool
) -> None:
    whole = linear(rows, columns, bias=bias, seed=seed)
    layer = QuantisedLinear(whole, scheme)
    matrix = rounded(whole.weight.detach(), scheme)
    torch.testing.assert_close(layer.expanded(torch.float32), matrix, atol=1e-6, rtol=1e-5)

    x = torch.randn(tokens, columns, dtype=torch.float64, requires_grad=True)
    exact = layer.expanded(torch.float64)
    expected = F.linear(x, exact, None if whole.bias is None else whole.bias.double())
    torch.testing.assert_close(layer(x), expected)
    weights = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad((y * weights).sum(), x) for y in (layer(x), expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_autocast_and_bfloat16_compute_as_a_plain_layer_does(scheme: str) -> None:
    layer = QuantisedLinear(linear(48, 64), scheme)
    plain = linear(48, 64)
    plain.weight = nn.Parameter(layer.expanded(torch.float32))
    x = torch.randn(7, 64)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = layer(x), plain(x)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    assert torch.equal(ours, theirs)
    # The cast leaves codes and scales alone: the matrix is rounded to bfloat16 once, not twice.
    cast = copy.deepcopy(layer).to(torch.bfloat16)
    assert torch.equal(cast.expanded(torch.float32), layer.expanded(torch.float32))
    assert cast(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_row_depends_on_nothing_but_itself(scheme: str) -> None:
    """Neither on its neighbours, large as they may be, nor on whether the layer trains."""
    layer = QuantisedLinear(linear(64, 64), scheme).double()
    x = torch.randn(5, 64, dtype=torch.float64)
    x[2, 3], x[4, 60] = 500.0, -90.0
    alone = torch.cat([layer(row[None]) for row in x])
    torch.testing.assert_close(layer(x), alone, atol=1e-10, rtol=0)
    assert torch.equal(layer.eval()(x), layer.train()(x))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_nothing_as_large_as_the_matrix_waits_for_the_way_back(scheme: str) -> None:
    layer = QuantisedLinear(linear(64, 96), scheme)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = layer(torch.randn(2, 96, requires_grad=True) * 2)
    assert y.requires_grad
    assert [t.shape for t in kept if t.is_floating_point() and t.numel() >= 64 * 96] == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_layer_compiles_whole_and_can_be_recomputed(scheme: str) -> None:
    layer = QuantisedLinear(linear(32, 64), scheme)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(3, 64, requires_grad=True)

    def recomputed(x: Tensor) -> Tensor:
        return checkpoint(layer, x, use_reentrant=False)

    grads = [torch.autograd.grad(f(x).square().sum(), x)[0] for f in (layer, compiled, recomputed)]
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(grads[0], grads[2])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_matrix_with_empty_rows_survives(scheme: str) -> None:
    whole = linear(8, 64)
    whole.weight.data[3:5] = 0
    layer = QuantisedLinear(whole, scheme)
    assert torch.equal(layer.expanded(torch.float32)[3:5], torch.zeros(2, 64))
    assert layer.expanded(torch.float32).isfinite().all()
