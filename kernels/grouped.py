"""Rows sorted by modality, and one grouped matrix product for both modalities' weights.

``torch.nn.functional.grouped_mm`` wants the weights of all groups in one tensor. Ours are separate
parameters, which may train apart, so both are copied side by side for each product, and once more
on the way back: one number copied for each ``rows`` operations of the product. A CPU computes some
80 operations in the time of a copied number, a recent GPU some 800: only long batches hide it. No
copy outlives its product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from lightning_mono.kernels.contract import compute_dtype
from lightning_mono.kernels.gathered import gathered
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

if TYPE_CHECKING:
    from lightning_mono.kernels.contract import Routed

    from lightning_mono.model.layout import ModalityLayout

Body = Callable[[Tensor, "ModalityLayout", Any, Any], Tensor]


def grouped(x: Tensor, layout: ModalityLayout, text: nn.Module, visual: nn.Module) -> Tensor:
    """Sorts the rows by modality, computes both modalities at once, puts the rows back.

    Blocks without a grouped form (norms, quantised weights, sizes that are not a multiple of 16
    bytes) and batches of one modality, where there is nothing to group, go to ``gathered``.
    """
    dtype = compute_dtype(x)
    body = _body(dtype, text, visual) if why_not((), x.device, dtype) is None else None
    if body is None or layout.text.count == 0 or layout.visual.count == 0:
        return gathered(x, layout, text, visual)
    rows = _Permuted.apply(x, layout.order, layout.places)
    return _Permuted.apply(body(rows, layout, text, visual), layout.places, layout.order)


def why_not(blocks: Sequence[Routed], device: torch.device | str, dtype: torch.dtype) -> str | None:
    """Says why no block can be grouped there, or returns None where one can.

    Args:
        blocks: what the kernel would serve; none asks about device and dtype alone.
        device: where the blocks will be.
        dtype: what is multiplied, which under autocast is not that of the weights.
    """
    name, device = str(dtype).removeprefix("torch."), torch.device(device)
    if not hasattr(F, "grouped_mm"):
        return f"torch {torch.__version__} has no grouped_mm"
    if device.type not in ("cpu", "cuda"):
        return f"grouped_mm does not run on {device.type}"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        return "grouped_mm needs a GPU of compute capability 8.0 or above"
    if dtype != torch.bfloat16 and (device.type, dtype) != ("cpu", torch.float32):
        return f"grouped_mm on {device.type} does not take {name}"
    if blocks and all(_body(dtype, b.text, b.visual) is None for b in blocks):
        return f"no block's weights are {name} in rows of whole 16 bytes, as grouped_mm needs"
    return None


def _body(dtype: torch.dtype, text: nn.Module, visual: nn.Module | None) -> Body | None:
    """The grouped form of a block, where it has one and grouped_mm takes its weights."""
    # Here and not above: the model is built of kernels, and so imports this package first.
    from lightning_mono.model.experts import QKV, RMSNorm, SwiGLU
    from lightning_mono.model.linear import PLAIN

    bodies: dict[type[nn.Module], Body] = {SwiGLU: _swiglu, QKV: _qkv}
    bodies |= dict.fromkeys(PLAIN, _linear)
    if type(text) not in bodies or type(visual) is not type(text):
        return None
    leaves = [m for m in (*text.modules(), *visual.modules()) if not [*m.children()]]
    products = [m for m in leaves if not isinstance(m, RMSNorm)]
    return bodies[type(text)] if all(_fits(m, dtype) for m in products) else None


def _fits(module: nn.Module, dtype: torch.dtype) -> bool:
    """Whether it is a plain product, not a quantised one, in rows of whole 16 bytes."""
    from lightning_mono.model.linear import PLAIN

    if not isinstance(module, nn.Linear) or type(module) not in PLAIN:
        return False
    return not any(n * dtype.itemsize % 16 for n in (module.in_features, module.out_features))


def _swiglu(x: Tensor, layout: ModalityLayout, text: Any, visual: Any) -> Tensor:
    gate = _linear(x, layout, text.gate, visual.gate)
    up = _linear(x, layout, text.up, visual.up)
    return _linear(F.silu(gate) * up, layout, text.down, visual.down)


def _qkv(x: Tensor, layout: ModalityLayout, text: Any, visual: Any) -> Tensor:
    def normed(name: str) -> Tensor:
        y = _linear(x, layout, getattr(text, name), getattr(visual, name))
        norms = getattr(text, f"{name}_norm"), getattr(visual, f"{name}_norm")
        if norms[0] is None:
            return y
        rows = y.unflatten(-1, (-1, text.head_dim)).split([layout.text.count, layout.visual.count])
        return torch.cat([norm(part) for norm, part in zip(norms, rows, strict=True)]).flatten(-2)

    return torch.cat([normed("q"), normed("k"), _linear(x, layout, text.v, visual.v)], dim=-1)


def _linear(x: Tensor, layout: ModalityLayout, text: nn.Linear, visual: nn.Linear) -> Tensor:
    """x W^T + b with the weights of each row's modality; rows are sorted, text first."""
    dtype = compute_dtype(x)
    weights = text.weight.to(dtype), visual.weight.to(dtype)
    y = _GroupedProduct.apply(x.to(dtype), *weights, layout.ends, layout.text.count)
    if text.bias is None:
        return y
    y_text, y_visual = y.split([layout.text.count, layout.visual.count])
    return torch.cat([y_text + text.bias.to(dtype), y_visual + visual.bias.to(dtype)])


class _GroupedProduct(torch.autograd.Function):
    """Rows of two groups times the transposes of two weights.

    Kept for the way back are the weights themselves: the stack that grouped_mm wants would double
    the weights of every layer until then. A frozen weight gets no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, text: Tensor, visual: Tensor, ends: Tensor, first: int
    ) -> Tensor:
        ctx.save_for_backward(x, text, visual, ends)
        ctx.first = first
        return _stacked_product(x, text, visual, ends, True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, text, visual, ends = ctx.saved_tensors
        grad, first = grads[0].contiguous(), ctx.first
        needs_x, needs_text, needs_visual, *_ = ctx.needs_input_grad
        return (
            _stacked_product(grad, text, visual, ends, False) if needs_x else None,
            grad[:first].t() @ x[:first] if needs_text else None,
            grad[first:].t() @ x[first:] if needs_visual else None,
            None,
            None,
        )


@torch.library.custom_op("lightning_mono::stacked_product", mutates_args=())
def _stacked_product(
    x: Tensor, text: Tensor, visual: Tensor, ends: Tensor, transposed: bool
) -> Tensor:
    """Sorted rows times either weight, or its transpose.

    An operator of its own, since what torch 2.14 knows of grouped_mm without computing it, which is
    what torch.compile asks, leaves out fp32.
    """
    weights = torch.stack([text, visual])
    return F.grouped_mm(x, weights.transpose(1, 2) if transposed else weights, offs=ends)


@_stacked_product.register_fake
def _(x: Tensor, text: Tensor, visual: Tensor, ends: Tensor, transposed: bool) -> Tensor:
    return x.new_empty(x.shape[0], text.shape[0 if transposed else 1])


@register_flop_formula(torch.ops.lightning_mono.stacked_product)
def _flops(x: Sequence[int], text: Sequence[int], *_: object, **__: object) -> int:
    """What FlopCounterMode counts: a row meets one weight."""
    return 2 * x[0] * text[0] * text[1]


class _Permuted(torch.autograd.Function):
    """Rows in another order; the way back is the inverse order, and so as cheap."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.inverse = inverse
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0].index_select(0, ctx.inverse), None, None
