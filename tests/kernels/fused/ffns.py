"""FFNs of two modalities, layouts to call them with, and what a kernel makes of both."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from lightning_mono.kernels.fused.ffn import SAVE, Saving, ffn
from torch import Tensor, nn

from lightning_mono.model import ModalityLayout
from lightning_mono.model.experts import SwiGLU

HIDDEN, FFN = 32, 48
Pair = tuple[SwiGLU, SwiGLU]
LAYOUTS = {
    "alternating": [i % 2 == 0 for i in range(37)],
    "one text token": [False],
    "one visual token": [True],
    "all text": [False] * 21,
    "all image": [True] * 17,
    "full tiles": [False] * 16 + [True] * 32,
    "runs": [False] * 5 + [True] * 18 + [False] * 10,
}
MIXED = LAYOUTS["runs"]


def swiglus(
    text: torch.dtype = torch.float32,
    visual: torch.dtype = torch.float32,
    hidden: int = HIDDEN,
    ffn_size: int = FFN,
) -> Pair:
    torch.manual_seed(0)
    pair = SwiGLU(hidden, ffn_size).to(text), SwiGLU(hidden, ffn_size).to(visual)
    for linear in (*pair[0].children(), *pair[1].children()):
        assert isinstance(linear, nn.Linear)
        nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
    return pair


def layout_of(mask: list[bool]) -> ModalityLayout:
    return ModalityLayout.from_mask(torch.tensor([mask], dtype=torch.bool))


def rows_of(mask: list[bool], hidden: int = HIDDEN, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(len(mask))
    return torch.randn(len(mask), hidden, generator=generator).to(dtype)


def run(
    kernel: Callable[..., Tensor], x: Tensor, mask: list[bool], pair: Pair, saving: Saving = SAVE
) -> list[Tensor | None]:
    """Output, and the gradients of input and all weights under a fixed random loss."""
    x = x.detach().requires_grad_()
    text, visual = copy.deepcopy(pair)
    more = (saving,) if kernel is ffn else ()
    y = kernel(x, layout_of(mask), text, visual, *more)
    loss_weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    (y * loss_weights).sum().backward()
    return [y.detach(), x.grad, *(p.grad for m in (text, visual) for p in m.parameters())]


def close(ours: list[Tensor | None], oracle: list[Tensor | None], within: float) -> None:
    """Equal up to a share of the largest entry; None where the other is None."""
    for one, other in zip(ours, oracle, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            largest = max(1.0, float(other.detach().abs().max()) if other.numel() else 0.0)
            torch.testing.assert_close(one.float(), other.float(), atol=within * largest, rtol=0)


def in_fp32(pair: Pair) -> Pair:
    return copy.deepcopy(pair[0]).float(), copy.deepcopy(pair[1]).float()
