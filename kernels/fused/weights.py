"""A weight as kernels read it: plain, or rounded to 4 or 8 bits and expanded a block at a time.

What is expanded is never larger than the block that a program multiplies, and lives in registers
and shared memory alone. Every row tile expands its weights anew.
"""

# In kernels, constants are in capitals and arguments have no Python types.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from lightning_mono.model import quantised
from lightning_mono.model.quantised import QuantisedLinear

BLOCK = tl.constexpr(quantised.BLOCK)


class Matrix(NamedTuple):
    """A weight (out, in), under the same names on the host and in kernels.

    Attributes:
        at: its numbers; where it is rounded, the codes of ``QuantisedLinear``.
        row: places in ``at`` from one row to the next.
        scales: the bits of a rounded weight's fp32 scales; None where it is plain.
    """

    at: Tensor
    row: int
    scales: Tensor | None


def matrix(weight: Tensor, width: int, scales: Tensor | None = None) -> Matrix:
    """A weight (out, width), or its codes and scales, as kernels read it."""
    if scales is None:
        return Matrix(weight, weight.stride(0), None)
    return Matrix(weight, width // 2 if weight.dtype == torch.uint8 else width, scales)


def matrices(
    weights: Sequence[Tensor], widths: Sequence[int], scales: Sequence[Tensor] = ()
) -> list[Matrix]:
    """Weights of given widths; ``scales`` holds one for each, or none where they are plain."""
    given: Sequence[Tensor | None] = scales or [None] * len(weights)
    return [matrix(*each) for each in zip(weights, widths, given, strict=True)]


def scales_of(linears: Iterable[nn.Module]) -> list[Tensor]:
    """Scales of rounded layers; none of plain ones."""
    return [linear.scales for linear in linears if isinstance(linear, QuantisedLinear)]


def height(weight: Tensor, width: int) -> int:
    """Rows of a weight of so many columns, or of the one that these codes stand for."""
    codes = 2 if weight.dtype == torch.uint8 else 1
    return codes * weight.numel() // width


@triton.jit
def chosen(text, visual, is_visual):
    """The plain weight of a tile's modality; both are of one dtype."""
    return Matrix(visual.at if is_visual else text.at, visual.row if is_visual else text.row, None)


@triton.jit
def rounded(w, rows, first, COUNT: tl.constexpr, WRAP: tl.constexpr):
    """(rows, COUNT) fp32 of a rounded weight from column ``first`` on, a multiple of COUNT.

    With WRAP, columns past the end start again at 0.
    """
    if w.at.dtype.element_ty == tl.uint8:
        values = _nf4(w, rows, first, COUNT, WRAP)
    else:
        columns = first + tl.arange(0, COUNT)
        if WRAP:
            columns = tl.max_contiguous(tl.multiple_of(columns % w.row, 16), 16)
        codes = tl.load(w.at + rows[:, None] * w.row + columns[None, :])
        scale = tl.load(w.scales + rows).to(tl.float32, bitcast=True)
        values = codes.to(tl.float32) * tl.div_rn(scale, 127.0)[:, None]
    return values


@triton.jit
def _nf4(w, rows, first, COUNT: tl.constexpr, WRAP: tl.constexpr):
    """Two codes a byte, the first in the high bits; a scale for each BLOCK weights of a row."""
    SHARE: tl.constexpr = BLOCK if COUNT > BLOCK else COUNT
    pairs = first // 2 + tl.arange(0, COUNT // 2)
    blocks = first // BLOCK + tl.arange(0, COUNT // SHARE)
    a_row = w.row // (BLOCK // 2)
    if WRAP:
        pairs = tl.max_contiguous(tl.multiple_of(pairs % w.row, SHARE // 2), SHARE // 2)
        blocks = blocks % a_row
    bits = tl.load(w.at + rows[:, None] * w.row + pairs[None, :]).to(tl.int32)
    levels = tl.join(_level(bits >> 4), _level(bits & 15))
    scale = tl.load(w.scales + rows[:, None] * a_row + blocks[None, :])
    scale = scale.to(tl.float32, bitcast=True)
    if COUNT > SHARE:
        levels = tl.reshape(levels, (rows.shape[0], COUNT // SHARE, SHARE))
        levels *= tl.expand_dims(scale, 2)
        levels = tl.reshape(levels, (rows.shape[0], COUNT))
    else:
        levels = tl.reshape(levels, (rows.shape[0], COUNT)) * scale
    return levels


@triton.jit
def _level(code):
    """The level of an NF4 code (QLoRA, appendix E): a tree of selects, for there is no lookup."""
    negative = tl.where(
        (code & 4) == 0,
        _one_of_four(code, -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        _one_of_four(code, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    )
    positive = tl.where(
        (code & 4) == 0,
        _one_of_four(
            code, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224
        ),
        _one_of_four(code, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    )
    return tl.where((code & 8) == 0, negative, positive)


@triton.jit
def _one_of_four(code, a, b, c, d):
    odd = (code & 1) != 0
    return tl.where((code & 2) == 0, tl.where(odd, b, a), tl.where(odd, d, c))
