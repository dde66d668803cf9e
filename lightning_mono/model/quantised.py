"""Frozen text weights in 4 or 8 bits: an eighth or a quarter of the memory that fp32 takes.

The numbers are those of bitsandbytes: NF4 in blocks of 64 (QLoRA, Dettmers et al. 2023), int8 by
rows (LLM.int8()). Its modules are not used. Its 4-bit one computes in bf16, and can no longer be
differentiated, once it was called in eval mode on a CPU that has bf16 products, and cannot load its
own state; its 8-bit one rounds activations too, with outliers looked for over all rows, so that a
token's numbers would depend on its neighbours and on the kernel. Here nothing but the weight is
rounded: it is expanded where it is multiplied, forward and backward, and kept nowhere.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mono.errors import CheckpointError
from lightning_mono.kernels.contract import compute_dtype
from lightning_mono.model.linear import PLAIN, Linear
from lightning_mono.model.linear import linear as multiplied
from lightning_mono.params import GROUPS, QUANTISABLE, grouped

BLOCK = 64
"""Weights that share an NF4 scale."""

SLAB = 2**20
"""Weights that are rounded at a time: memory as large as a matrix is new memory, page by page."""


@dataclass(frozen=True)
class Scheme:
    """A way to keep a matrix in few bits.

    Attributes:
        encode: a matrix (out, in) fp32 to its codes, of an integer type, and fp32 scales.
        decode: codes, scales, (out, in) and a dtype to the matrix in that dtype.
    """

    encode: Callable[[Tensor], tuple[Tensor, Tensor]]
    decode: Callable[[Tensor, Tensor, torch.Size, torch.dtype], Tensor]


class QuantisedLinear(nn.Linear):
    """A frozen linear layer that computes with the rounded weight as `nn.Linear` would.

    Attributes:
        weight: the codes.
        scales: the bits of the fp32 scales as int32, for a cast of the whole model (``bf16-true``)
            would round them.
    """

    def __init__(self, linear: nn.Linear, scheme: str) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        codes, scales = encoded(linear.weight.detach(), scheme)
        self.scheme = scheme
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.scales = nn.Parameter(scales.view(torch.int32), requires_grad=False)
        self.bias = linear.bias

    def expanded(self, dtype: torch.dtype) -> Tensor:
        """The rounded weight, (out, in)."""
        shape = torch.Size((self.out_features, self.in_features))
        scales = self.scales.view(torch.float32)
        return SCHEMES[self.scheme].decode(self.weight, scales, shape, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in autocast's dtype where that is on, as any linear layer."""
        y = _Product.apply(x.to(compute_dtype(x)), self)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def came_from(self, weight: Tensor) -> bool:
        """Whether a matrix has these scales, which is to say: is the one that was rounded.

        They are exact on every device, where a code between two levels may fall to either.
        """
        if weight.shape != (self.out_features, self.in_features):
            return False
        scales = encoded(weight, self.scheme)[1]
        return torch.equal(scales.view(torch.int32), self.scales)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scheme={self.scheme}"


class _Product(torch.autograd.Function):
    """x W^T; what is kept for the way back is W's few bits, not the matrix they stand for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: QuantisedLinear) -> Tensor:
        ctx.linear = linear
        return multiplied(x, linear.expanded(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return multiplied(grads[0], ctx.linear.expanded(grads[0].dtype).t()), None


def encoded(weight: Tensor, scheme: str) -> tuple[Tensor, Tensor]:
    """Codes and fp32 scales of a matrix (out, in)."""
    encode = SCHEMES[scheme].encode
    parts = [encode(rows.float()) for rows in weight.split(slab_height(weight.shape[1]))]
    codes, scales = zip(*parts, strict=True)
    return torch.cat(codes), torch.cat(scales)


def slab_height(columns: int) -> int:
    """Rows of a slab: whole blocks of weights, whatever the row's length."""
    return max(BLOCK, SLAB // columns // BLOCK * BLOCK)


def quantise(
    model: nn.Module,
    scheme: str,
    *,
    groups: Sequence[str] = QUANTISABLE,
    layer: Callable[[nn.Linear, str], QuantisedLinear] = QuantisedLinear,
) -> None:
    """Rounds the text matrices of all layers, in place; make experts before, they are copies.

    Embeddings, head, norms, patchifier and visual experts stay as they are.

    Args:
        scheme: ``nf4`` or ``int8``.
        groups: whose matrices, where it is to be others.
        layer: makes what stands in a linear layer's place.
    """
    for name in [name for name, _ in model.named_modules()]:
        linear = matrix_at(model, name, groups)
        if linear is not None:
            put(model, name, layer(linear, scheme))


def restore(model: nn.Module, full: Mapping[str, Tensor]) -> None:
    """Puts the full matrices back, in place, in the dtype of the rest of the model.

    Args:
        full: the weights that were rounded, by their names in the model.

    Raises:
        CheckpointError: they are missing, or are others than those that were rounded.
    """
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    for name, rounded in list(quantised_linears(model)):
        weight = full.get(f"{name}.weight")
        value = None if weight is None else weight.to(rounded.weight.device, dtype)
        if value is None or not rounded.came_from(value):
            raise CheckpointError(
                f"{name}.weight: the full weight is not the one that was rounded to "
                f"{rounded.scheme}; put the backbone back that the run began with"
            )
        sizes = rounded.in_features, rounded.out_features
        linear = Linear(*sizes, bias=False, device="meta")
        linear.weight, linear.bias = nn.Parameter(value, requires_grad=False), rounded.bias
        put(model, name, linear)


def quantised_linears(model: nn.Module) -> Iterator[tuple[str, QuantisedLinear]]:
    """The layers whose weights are rounded, by name."""
    for name, module in model.named_modules():
        if isinstance(module, QuantisedLinear):
            yield name, module


def parameter_count(model: nn.Module) -> int:
    """Parameters of a model; a rounded matrix counts as the matrix that it stands for."""
    rounded = [linear for _, linear in quantised_linears(model)]
    stored = sum(m.weight.numel() + m.scales.numel() for m in rounded)
    meant = sum(m.in_features * m.out_features for m in rounded)
    return sum(p.numel() for p in model.parameters()) - stored + meant


def bytes_by_group(model: nn.Module) -> dict[str, int]:
    """What each parameter group takes in memory."""
    sizes = {name: parameter.nbytes for name, parameter in model.named_parameters()}
    return {group: sum(map(sizes.__getitem__, names)) for group, names in grouped(sizes).items()}


def matrix_at(model: nn.Module, name: str, groups: Sequence[str]) -> nn.Linear | None:
    """The plain linear layer of this name, if there is one and its weight is of these groups."""
    if not any(re.fullmatch(GROUPS[group], f"{name}.weight") for group in groups):
        return None
    module = model.get_submodule(name)
    return module if isinstance(module, nn.Linear) and type(module) in PLAIN else None


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Makes a module the one of this name."""
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, module)


@cache
def bitsandbytes(module: str) -> Any:
    """A module of bitsandbytes, which takes seconds to import and is imported when it is used.

    On some CPUs it then warns that it lacks a kernel; nothing here would call it.
    """
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    return import_module(f"bitsandbytes.{module}")


def _encode_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    blocks = F.pad(weight.flatten(), (0, -weight.numel() % BLOCK)).view(-1, BLOCK)
    functional = bitsandbytes("functional")
    codes, state = functional.quantize_4bit(blocks, blocksize=BLOCK, quant_type="nf4")
    return codes, state.absmax


def _decode_nf4(codes: Tensor, scales: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Block by block: rows that begin within a block come out wrong on CPUs (bitsandbytes 0.50)."""
    made = dtype if dtype in (torch.bfloat16, torch.float16) else torch.float32
    decode = torch.ops.bitsandbytes.dequantize_4bit  # torch.compile reads no QuantState
    flat = decode(codes, scales, BLOCK, "nf4", (len(scales), BLOCK), made).flatten()
    return flat[: shape.numel()].view(shape).to(dtype)


def _encode_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    scales = weight.abs().amax(1)
    return (weight * (127 / scales.clamp(min=1e-38))[:, None]).round().to(torch.int8), scales


def _decode_int8(codes: Tensor, scales: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    return codes.float().mul_((scales / 127)[:, None]).to(dtype)


SCHEMES: Mapping[str, Scheme] = MappingProxyType(
    {"nf4": Scheme(_encode_nf4, _decode_nf4), "int8": Scheme(_encode_int8, _decode_int8)}
)
