"""Weights of 4 or 8 bits where a model answers: every token reads all of them, and little else.

Two things are dear on a CPU. Expanding a matrix takes new memory, whose pages cost ten times the
product of a row: it is expanded in slabs, which are used again. And what is expanded is four to
eight times what is stored: so few rows, those of a new token, are multiplied with the codes as they
lie, by bitsandbytes' and PyTorch's own operators. They take and give bfloat16, which is no rule for
training and none for prompts: more rows get the product with the expanded matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mono.errors import CheckpointError
from lightning_mono.kernels.contract import compute_dtype
from lightning_mono.model.assign import assign
from lightning_mono.model.linear import linear as multiplied
from lightning_mono.model.quantised import (
    BLOCK,
    SCHEMES,
    QuantisedLinear,
    bitsandbytes,
    matrix_at,
    put,
    quantise,
    quantised_linears,
    slab_height,
)
from lightning_mono.params import QUANTISABLE

Place = Callable[[nn.Module, str, Tensor], None]
"""Makes a tensor the weight of this name."""

ANSWERING = (*QUANTISABLE, "experts.ffn", "experts.attention")
"""Groups whose matrices are rounded where a model answers."""

FEW: Mapping[str, int] = MappingProxyType({"nf4": 32, "int8": 16})
"""Rows that are multiplied in bfloat16; int8's operator takes longer than slabs beyond."""

GROUP = 32
"""Rows of a matrix that bitsandbytes' CPU operator computes together."""


def round_to_answer(model: nn.Module, scheme: str, device: str | torch.device = "cpu") -> None:
    """Rounds all matrices of the layers, text and visual, in place, and moves the model.

    Embeddings, head, norms and patchifier stay as they are. What is rounded answers, and cannot be
    saved any more.

    Args:
        scheme: ``nf4`` or ``int8``.

    Raises:
        CheckpointError: the scheme is not known, what it needs is not there, or the model is
            rounded already or in float16.
    """
    check_scheme(scheme)
    if any(quantised_linears(model)):
        raise CheckpointError(f"quantize={scheme}: the model's weights are in few bits already")

    def rounded(linear: nn.Linear, scheme: str) -> QuantisedLinear:
        return AnsweringLinear(linear.to(device), scheme)  # one by one: the device holds few bits

    quantise(model, scheme, groups=ANSWERING, layer=rounded)
    model.to(device)


def placing(scheme: str, device: str | torch.device = "cpu") -> Place:
    """As :func:`round_to_answer`, weight by weight while a model is read: there is no whole one."""
    check_scheme(scheme)

    def place(model: nn.Module, name: str, value: Tensor) -> None:
        assign(model, name, value.to(device))
        layer, _, leaf = name.rpartition(".")
        linear = matrix_at(model, layer, ANSWERING) if leaf == "weight" else None
        if linear is not None:
            put(model, layer, AnsweringLinear(linear, scheme))

    return place


def check_scheme(scheme: str) -> None:
    """Raises CheckpointError where there is no such scheme, or not what it needs."""
    if scheme not in SCHEMES:
        raise CheckpointError(f"quantize: {scheme!r} is none of {', '.join(SCHEMES)}")
    if scheme == "nf4":
        try:
            bitsandbytes("functional")
        except ImportError as error:
            raise CheckpointError(
                f"quantize=nf4 needs bitsandbytes ({error}); install it, or take int8"
            ) from error


class AnsweringLinear(QuantisedLinear):
    """A rounded layer that reads its few bits once a token, where the machine can.

    With gradients, and on GPUs, it computes what the layer it extends does.

    Attributes:
        direct: whether the CPU has an operator that reads codes of this shape.
        weight: the codes; of NF4 in that operator's order, if so.
        absmax: the bits of NF4's scales as the operator reads them, bfloat16 as int16, transposed.

    Raises:
        CheckpointError: the weight is in float16.
    """

    absmax: Tensor | None

    def __init__(self, linear: nn.Linear, scheme: str) -> None:
        if linear.weight.dtype == torch.float16:
            raise CheckpointError(f"quantize={scheme}: float16 overflows; ask for bfloat16")
        super().__init__(linear, scheme)
        sizes = self.out_features % GROUP == 0 and self.in_features % BLOCK == 0
        self.direct = self.weight.device.type == "cpu" and sizes and _reads(scheme)
        absmax = None
        if self.direct and scheme == "nf4":
            self.weight.data = _packed(self.weight, self.in_features)
            scales = self.scales.view(torch.float32).view(self.out_features, -1)
            absmax = scales.t().bfloat16().contiguous().view(torch.int16)
        self.register_buffer("absmax", absmax, persistent=False)

    def expanded(self, dtype: torch.dtype) -> Tensor:
        return self._rows(0, self.out_features, dtype)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or (torch.is_grad_enabled() and x.requires_grad):
            return super().forward(x)
        x = x.to(compute_dtype(x))
        rows = x.reshape(-1, self.in_features)
        few = self.direct and 0 < len(rows) <= FEW[self.scheme] and x.dtype != torch.float64
        y = self._few(rows) if few else torch.cat([*self._slabs(rows)], dim=1)
        y = y.view(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def _few(self, rows: Tensor) -> Tensor:
        narrow = rows.bfloat16().contiguous()
        if self.absmax is not None:
            y = _nf4_product(narrow, self.weight, self.absmax.view(torch.bfloat16))
        else:
            y = _int8_product(narrow, self.weight, self.scales.view(torch.float32))
        return y.to(rows.dtype)

    def _slabs(self, rows: Tensor) -> Iterator[Tensor]:
        height = slab_height(self.in_features)
        for start in range(0, self.out_features, height):
            stop = min(start + height, self.out_features)
            yield multiplied(rows, self._rows(start, stop, rows.dtype))

    def _rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Rows of the rounded weight, from a multiple of BLOCK on."""
        a_scale = BLOCK if self.scheme == "nf4" else self.in_features
        scales = self.scales.view(torch.float32)
        part = slice(start * self.in_features // a_scale, -(stop * self.in_features // -a_scale))
        codes = self.weight.view(len(scales), -1)[part]
        if self.absmax is not None:
            codes = _unpacked(codes, self.in_features)
        shape = torch.Size((stop - start, self.in_features))
        return SCHEMES[self.scheme].decode(codes, scales[part], shape, dtype)


def _packed(codes: Tensor, columns: int) -> Tensor:
    """NF4 codes in the order of bitsandbytes' CPU operator, (out, in / 2).

    Of 32 rows those of all columns 2k and 2k + 1 lie together: bytes (k, 16, 2), with the first 16
    rows in the low bits and the others in the high ones.
    """
    pairs = codes.view(-1, 2, GROUP // 2, columns // 2)
    low, high = pairs.unbind(1)
    even, odd = (low >> 4) | (high & 0xF0), (low & 0x0F) | (high << 4)
    return torch.stack([even, odd], dim=-1).transpose(1, 2).reshape(-1, columns // 2)


def _unpacked(packed: Tensor, columns: int) -> Tensor:
    """The inverse of :func:`_packed`, for whole groups of rows: (bytes, 1).

    An even column's byte and the odd one's beside it are one int16, which little-endian machines
    read with the even one in the low bits; others have no such operator.
    """
    pairs = packed.reshape(-1).view(torch.int16).view(-1, GROUP // 2).t().contiguous()
    pairs = pairs.view(GROUP // 2, -1, columns // 2)  # (row, group, k)
    low = (pairs & 0x0F) << 4 | (pairs >> 8) & 0x0F
    high = (pairs & 0xF0) | (pairs >> 12) & 0x0F
    return torch.stack([low, high]).to(torch.uint8).permute(2, 0, 1, 3).reshape(-1, 1)


def _nf4_product(rows: Tensor, packed: Tensor, absmax: Tensor) -> Tensor:
    shape = len(packed), rows.shape[1]
    return torch.ops.bitsandbytes.gemv_4bit(rows, packed, shape, absmax, _levels(), BLOCK)


def _int8_product(rows: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """The operator's own scales would be bfloat16; fp32 ones take no longer."""
    ones = rows.new_ones(len(codes))
    return torch._weight_int8pack_mm(rows, codes, ones) * (scales / 127)


@cache
def _levels() -> Tensor:
    return bitsandbytes("functional").get_4bit_type("nf4", "cpu")


@cache
def _reads(scheme: str) -> bool:
    """Whether this CPU has the operator: found by asking it for a product that is known.

    A machine without bfloat16 products has another one by the same name, which reads another order.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(GROUP, 2 * BLOCK, generator=generator)
    rows = torch.randn(3, 2 * BLOCK, generator=generator).bfloat16()
    codes, scales = SCHEMES[scheme].encode(weight)
    expected = F.linear(
        rows.float(), SCHEMES[scheme].decode(codes, scales, weight.shape, torch.float32)
    )
    try:
        if scheme == "nf4":
            absmax = scales.view(GROUP, -1).t().bfloat16().contiguous()
            y = _nf4_product(rows, _packed(codes, weight.shape[1]), absmax)
        else:
            y = _int8_product(rows, codes, scales)
    except (RuntimeError, AttributeError):
        return False
    return torch.allclose(y.float(), expected, rtol=0.02, atol=0.02 * expected.abs().max().item())
