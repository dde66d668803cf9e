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
from lightning_mono.model.linear import linear

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
    """The products of one modality; the numbers mean nothing.

    Attributes:
        x: (rows, hidden).
        wide: (rows, ffn).
        weights: of gate, up and down.
        trains: whether they get gradients.
    """

    x: Tensor
    wide: Tensor
    weights: tuple[Tensor, ...]
    trains: bool

    @classmethod
    def of(cls, x: Tensor, ffn: SwiGLU, *, trains: bool) -> _Products:
        weights = tuple(p.detach() for p in ffn.parameters())
        return cls(x, x.new_zeros(len(x), len(weights[0])), weights, trains)

    def forward(self) -> None:
        gate, up, down = self.weights
        linear(self.x, gate)
        linear(self.x, up)
        linear(self.wide, down)

    def backward(self) -> None:
        gate, up, down = self.weights
        linear(self.x, down.t())
        linear(self.wide, gate.t())
        linear(self.wide, up.t())
        if self.trains:
            for rows, inputs in ((self.wide, self.x), (self.wide, self.x), (self.x, self.wide)):
                linear(rows.t(), inputs.t())
