"""The grouped kernel: which blocks it groups, what it keeps and computes, where it cannot run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from lightning_mono.kernels import masked_dense
from lightning_mono.kernels.grouped import grouped, why_not
from torch import Tensor, nn

from lightning_mono.model import ModalityLayout
from lightning_mono.model.experts import QKV, Experts, RMSNorm, SwiGLU
from lightning_mono.testing import tiny_decoder

CPU = torch.device("cpu")
LAYOUT = ModalityLayout.from_mask(torch.tensor([[False, True, True, False, True, False]]))


def _pair(make: Callable[[], nn.Module]) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return make(), make()


def _input(dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(6, 8, dtype=dtype, requires_grad=True)


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the weights of every grouped product that is computed, in order."""
    seen: list[tuple[int, ...]] = []
    real = F.grouped_mm

    def spy(rows: Tensor, weights: Tensor, *, offs: Tensor) -> Tensor:
        seen.append(tuple(weights.shape))
        return real(rows, weights, offs=offs)

    monkeypatch.setattr(F, "grouped_mm", spy)
    return seen


@pytest.mark.parametrize(
    ("make", "forward"),
    [
        (lambda: SwiGLU(8, 16), [(2, 8, 16), (2, 8, 16), (2, 16, 8)]),
        (lambda: nn.Linear(8, 12), [(2, 8, 12)]),
        (lambda: QKV(tiny_decoder(hidden_size=8)), [(2, 8, 16), (2, 8, 8), (2, 8, 8)]),
        (lambda: RMSNorm(8, 1e-5), []),
        (lambda: nn.Linear(8, 6), []),
        (lambda: SwiGLU(8, 16).double(), []),
    ],
    ids=["swiglu", "linear", "qkv", "norm", "rows of 24 bytes", "float64"],
)
def test_a_product_is_grouped_once_each_way_or_not_at_all(
    make: Callable[[], nn.Module],
    forward: list[tuple[int, ...]],
    products: list[tuple[int, ...]],
) -> None:
    text, visual = _pair(make)
    x = _input(next(text.parameters()).dtype)
    y = grouped(x, LAYOUT, text, visual)
    assert products == forward
    y.sum().backward()
    assert sorted(products[len(forward) :]) == sorted((g, n, k) for g, k, n in forward)
    torch.testing.assert_close(y, masked_dense(x, LAYOUT, text, visual))


@pytest.mark.parametrize("visual_tokens", [True, False])
def test_one_modality_alone_is_no_group(
    visual_tokens: bool, products: list[tuple[int, ...]]
) -> None:
    layout = ModalityLayout.from_mask(torch.full((2, 3), visual_tokens))
    grouped(_input(), layout, *_pair(lambda: SwiGLU(8, 16)))
    assert products == []


def test_a_weight_that_is_not_plain_is_left_to_its_module(products: list[tuple[int, ...]]) -> None:
    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(16, 8))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight.sign())

    text, visual = _pair(lambda: SwiGLU(8, 16))
    text.gate = Quantised()
    y = grouped(_input(), LAYOUT, text, visual)
    assert products == []
    torch.testing.assert_close(y, masked_dense(_input(), LAYOUT, text, visual))


def test_no_copy_of_the_weights_is_kept_for_the_way_back() -> None:
    text, visual = _pair(lambda: SwiGLU(8, 16))
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        grouped(_input(), LAYOUT, text, visual)
    weights = {p.data_ptr() for module in (text, visual) for p in module.parameters()}
    others = [t for t in kept if t.data_ptr() not in weights]
    assert len(kept) - len(others) == 6
    assert all(t.dim() < 3 and t.shape[0] in (2, 6) for t in others)  # ends of groups, or rows


def test_frozen_weights_get_no_gradient() -> None:
    text, visual = _pair(lambda: SwiGLU(8, 16))
    text.requires_grad_(False)
    grouped(_input(), LAYOUT, text, visual).sum().backward()
    assert all(p.grad is None for p in text.parameters())
    assert all(p.grad is not None for p in visual.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_computes_in_its_dtype(
    dtype: torch.dtype, products: list[tuple[int, ...]]
) -> None:
    """Rows come in fp32 from the residual stream, and in bf16 from attention."""
    text, visual = _pair(lambda: SwiGLU(8, 16))
    grads = []
    for kernel in (grouped, masked_dense):
        text.zero_grad()
        x = _input().to(dtype)
        with torch.autocast("cpu", torch.bfloat16):
            y = kernel(x, LAYOUT, text, visual)
        y.float().sum().backward()
        assert y.dtype == torch.bfloat16
        grads.append((y, text.gate.weight.grad, text.down.weight.grad))
    assert len(products) == 6
    assert grads[0][1].dtype == torch.float32
    torch.testing.assert_close(grads[0], grads[1], atol=2e-2, rtol=2e-2)


def _block(make: Callable[[], nn.Module], *, visual: bool = True) -> Experts:
    return Experts(make(), visual=visual)


def test_it_says_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    fits, odd = _block(lambda: SwiGLU(8, 16)), _block(lambda: SwiGLU(6, 10))
    norm = _block(lambda: RMSNorm(8, 1e-5))
    assert why_not([], CPU, torch.float32) is None
    assert why_not([], CPU, torch.bfloat16) is None
    assert why_not([norm, odd, fits], CPU, torch.float32) is None
    assert "whole 16 bytes" in str(why_not([norm, odd], CPU, torch.float32))
    assert "float64" in str(why_not([fits], CPU, torch.float64))
    assert "does not run on mps" in str(why_not([], torch.device("mps"), torch.float32))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert "float32" in str(why_not([], torch.device("cuda"), torch.float32))
    assert why_not([], torch.device("cuda"), torch.bfloat16) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert "8.0" in str(why_not([], torch.device("cuda"), torch.bfloat16))
    monkeypatch.delattr(F, "grouped_mm")
    assert "no grouped_mm" in str(why_not([], CPU, torch.float32))
