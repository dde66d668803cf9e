"""The bare matrix products of an FFN, and kernels that compute all of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_mono.bench.cases import Case
from lightning_mono.bench.timing import Contestant
from lightning_mono.kernels import KERNELS, Kernel, gathered
from lightning_mono.model import ModalityLayout
from lightning_mono.model.experts import SwiGLU

LIMIT = "bare GEMM"
"""Name of the contestant that no kernel can beat: its products, and nothing else."""

COPIES = "copies"
"""Name of ``gathered`` around modules that do nothing: rows taken and put back, and no more."""


def line_up(
    case: Case, kernels: Iterable[str], device: torch.device, dtype: torch.dtype
) -> dict[str, Contestant]:
    """The limit and some kernels on the same weights; visual ones train, text ones are frozen.

    With ``gathered`` comes what it spends on copies.
    """
    torch.manual_seed(0)
    with torch.device(device):
        text, visual = (SwiGLU(case.shape.hidden, case.shape.ffn).to(dtype) for _ in range(2))
        x = torch.randn(case.tokens, case.shape.hidden).to(dtype)
        grad = torch.randn(case.tokens, case.shape.hidden).to(dtype)
    text.requires_grad_(False)
    layout = ModalityLayout.from_mask(torch.tensor([case.flags()])).to(device)
    line = {LIMIT: _bare(case, text, visual, x)}
    for name in kernels:
        line[name] = _kernel(KERNELS[name], layout, text, visual, x, grad)
    if "gathered" in line:
        line[COPIES] = _kernel(gathered, layout, nn.Identity(), nn.Identity(), x, grad)
    return line


def _kernel(
    kernel: Kernel,
    layout: ModalityLayout,
    text: nn.Module,
    visual: nn.Module,
    x: Tensor,
    grad: Tensor,
) -> Contestant:
    inputs = x.clone().requires_grad_()

    def reset() -> None:
        inputs.grad = None
        visual.zero_grad(set_to_none=True)

    return Contestant(
        reset=reset,
        forward=lambda: kernel(inputs, layout, text, visual),
        backward=lambda y: y.backward(grad),
    )


def _bare(case: Case, text: SwiGLU, visual: SwiGLU, x: Tensor) -> Contestant:
    parts = x.split([case.text, case.visual])
    products = [
        _Products.of(rows, ffn, trains=ffn is visual)
        for rows, ffn in zip(parts, (text, visual), strict=True)
        if len(rows)
    ]

    def forward() -> None:
        for part in products:
            part.forward()

    def backward(_: None) -> None:
        for part in products:
            part.backward()

    return Contestant(reset=lambda: None, forward=forward, backward=backward)


@dataclass(frozen=True)
class _Products:
    """The products of one modality, into memory that is there; the numbers mean nothing.

    Attributes:
        x, y, dx: (rows, hidden).
        gate, up, wide: (rows, ffn).
        weights: of gate, up and down.
        grads: where the gradients of the weights go; none where they are frozen.
    """

    x: Tensor
    y: Tensor
    dx: Tensor
    gate: Tensor
    up: Tensor
    wide: Tensor
    weights: tuple[Tensor, ...]
    grads: tuple[Tensor, ...]

    @classmethod
    def of(cls, x: Tensor, ffn: SwiGLU, *, trains: bool) -> _Products:
        weights = tuple(p.detach() for p in ffn.parameters())
        gate, up, wide = x.new_zeros(3, len(x), len(weights[0]))
        y, dx = x.new_zeros(2, *x.shape)
        grads = tuple(torch.zeros_like(w) for w in weights) if trains else ()
        return cls(x, y, dx, gate, up, wide, weights, grads)

    def forward(self) -> None:
        gate, up, down = self.weights
        torch.mm(self.x, gate.t(), out=self.gate)
        torch.mm(self.x, up.t(), out=self.up)
        torch.mm(self.gate, down.t(), out=self.y)

    def backward(self) -> None:
        gate, up, down = self.weights
        torch.mm(self.y, down, out=self.wide)
        torch.mm(self.wide, gate, out=self.dx)
        torch.addmm(self.dx, self.up, up, out=self.dx)
        if self.grads:
            pairs = ((self.wide, self.x), (self.up, self.x), (self.y, self.gate))
            for (rows, inputs), grad in zip(pairs, self.grads, strict=True):
                torch.mm(rows.t(), inputs, out=grad)
