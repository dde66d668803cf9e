"""Which layers, dtypes and devices the fused kernels serve, and why not the others."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from lightning_mono.kernels.fused.launch import capability, interpreted
from torch import nn

from lightning_mono.model.linear import PLAIN
from lightning_mono.model.quantised import BLOCK, QuantisedLinear

DTYPES = (torch.bfloat16, torch.float32)


class Form(NamedTuple):
    """What decides whether a linear layer can be read: equal forms are served alike.

    Attributes:
        kind: its class.
        sizes: out and in.
        dtype: of its weight, or of the codes.
        by_rows: whether the numbers of a row lie side by side.
        biased: whether it has a bias.
    """

    name: str
    kind: type[nn.Module]
    sizes: tuple[int, int]
    dtype: torch.dtype
    by_rows: bool
    biased: bool

    @classmethod
    def of(cls, name: str, linear: nn.Module) -> Form:
        if not isinstance(linear, nn.Linear):
            return cls(name, type(linear), (0, 0), torch.float32, True, False)
        weight = linear.weight
        sizes = linear.out_features, linear.in_features
        by_rows = weight.stride(1) == 1
        return cls(name, type(linear), sizes, weight.dtype, by_rows, linear.bias is not None)

    @property
    def rounded(self) -> bool:
        return self.kind is QuantisedLinear


Side = tuple[Form, ...]
"""The layers of one modality."""


@torch.compiler.assume_constant_result
def why_not(text: Side, visual: Side, dtype: torch.dtype, device: torch.device) -> str | None:
    """Why the layers of two modalities cannot be served; None if they can.

    Args:
        dtype: of the products.
        device: of the tokens.
    """
    return why_not_on(device, dtype) or _why_not_sides(text, visual)


def why_not_on(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why nothing can be computed on a device in a dtype; None if it can."""
    if device.type != "cuda" and not interpreted():
        return f"fused kernels need a CUDA device, and the model is on {device.type}"
    if device.type == "cuda" and capability(device) < 80:
        return f"fused kernels need compute capability 8.0, which {device} does not have"
    if dtype not in DTYPES:
        # Sums are fp32, but SwiGLU's result and its gradients would be stored.
        why = " (gate * up overflows its range)" if dtype == torch.float16 else ""
        return f"fused kernels compute in bf16 or fp32, not in {dtype}{why}"
    return None


@cache
def _why_not_sides(text: Side, visual: Side) -> str | None:
    """Decided once for all layers of these forms: decoding asks for each of them at each token."""
    reasons = (
        *map(_why_not_form, (*text, *visual)),
        *map(_why_not_side, (text, visual)),
        _why_not_together(text, visual),
    )
    return next((reason for reason in reasons if reason is not None), None)


def _why_not_form(form: Form) -> str | None:
    if form.kind not in (*PLAIN, QuantisedLinear):
        package = form.kind.__module__.split(".")[0]
        return f"fused kernels read nn.Linear; {form.name} is {package}'s {form.kind.__name__}"
    if any(size % 16 for size in form.sizes):
        sizes = "x".join(map(str, reversed(form.sizes)))
        return f"fused kernels need sizes that are multiples of 16; {form.name} is {sizes}"
    if form.rounded:
        if form.sizes[1] % BLOCK:
            return (
                f"fused kernels need rounded weights in rows of whole blocks of {BLOCK}; a row of "
                f"{form.name} has {form.sizes[1]}"
            )
        return None
    if form.dtype not in DTYPES:
        return f"fused kernels read bf16 or fp32 weights; {form.name} is {form.dtype}"
    if not form.by_rows:
        return f"fused kernels read weights row by row; those of {form.name} are transposed"
    return None


def _why_not_side(side: Side) -> str | None:
    if len({(form.dtype, form.biased) for form in side}) > 1:
        names = ", ".join(form.name for form in side)
        return f"fused kernels need {names} of one modality alike in dtype and bias"
    return None


def _why_not_together(text: Side, visual: Side) -> str | None:
    for one, other in zip(text, visual, strict=True):
        if one.sizes != other.sizes:
            return f"fused kernels need text and visual {one.name} of the same sizes"
        if other.rounded:
            return f"fused kernels read plain visual weights; {other.name} is rounded"
    return None
