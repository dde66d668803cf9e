"""Linear layers whose fp32 products are oneDNN's where MKL is slow: on AMD's CPUs.

PyTorch gives fp32 products on a CPU to MKL, which has no AVX-512 for CPUs that are not Intel's.
oneDNN, which comes with PyTorch too and which bf16 products go through, has: on an EPYC it takes
half the time for 32 rows and more, forward and backward (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

SMALL = 2**21
"""Multiplications below which a product is over before oneDNN has begun."""


FEW = range(8, 65)
"""Rows for which W x^T takes less time than x W^T, up to a fifth at 16."""


class Linear(nn.Linear):
    """`nn.Linear` with the product of :func:`linear`; parameters, names and numbers are its own."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


PLAIN = (nn.Linear, Linear)
"""Layers that are one matrix, in full, and a bias; of others the weight may be anything."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b, as ``torch.nn.functional.linear``: (..., in) -> (..., out)."""
    if not _serves(x, weight):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        return _Product.apply(x, weight, bias)
    rows = x.numel() // weight.shape[1]
    if rows in FEW and bias is None:
        return product(weight, x.reshape(rows, -1)).t().unflatten(0, x.shape[:-1])
    return product(x, weight, bias)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b by oneDNN, in fp32, without a gradient; W may be a transposed view."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@cache
def onednn_is_faster() -> bool:
    """Whether this is a CPU whose AVX-512 oneDNN uses and MKL does not.

    It is decided by the make of the CPU and not by a race: a run has to compute the same numbers
    after it was resumed.
    """
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkl.is_available():
        return False
    said = _cpu()
    mine = "AuthenticAMD" in said and "avx512f" in said
    return mine and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _cpu() -> str:
    """What the system says of the CPU; nothing where it does not say so in a file."""
    info = Path("/proc/cpuinfo")
    return info.read_text(encoding="utf-8") if info.is_file() else ""


def _serves(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * weight.shape[0] >= SMALL
        and onednn_is_faster()
        and not torch.is_autocast_enabled("cpu")
    )


class _Product(torch.autograd.Function):
    """Keeps what `F.linear` keeps: the input where the weight trains, and the weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        rows = grads[0].reshape(-1, weight.shape[0])
        to_x = product(grads[0], weight.t()) if needs_x else None
        to_weight = product(rows.t(), x.reshape(-1, weight.shape[1]).t()) if needs_weight else None
        return to_x, to_weight, rows.sum(0) if needs_bias else None


if hasattr(torch.ops.mkldnn, "_linear_pointwise"):

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def _flops(x: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
        """What FlopCounterMode counts."""
        return 2 * torch.Size(x).numel() * weight[0]
