"""The fused FFN as a kernel, and as PyTorch operators that compile, checkpoint and differentiate.

Mono-InternVL, eq. 3: y = W_down (silu(W_gate x) * W_up x), with the weights of each token's
modality. Two launches forward, whatever the layout; nothing is gathered, scattered or stacked.

Memory of (tokens, ffn) in the dtype of x, beyond x and the result::

                          during forward   kept for backward   during backward
    no gradients          1 (h)            0                   -
    Saving(True)          3 (h, gate, up)  2 (gate, up)        2 more, 3 if a down projection trains
    Saving(False)         1 (h)            0                   2, 3 if a down projection trains

4,096 tokens of ffn 8,192 in bf16 are 64 MiB, so a layer keeps 128 MiB or nothing. The price of
nothing is gate and up computed once more: two of the forward pass's three products. Eager PyTorch
keeps four such tensors for the same block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from lightning_mono.kernels.fused import decode, ffn_backward, ffn_forward
from lightning_mono.kernels.fused.ffn_backward import Needs
from lightning_mono.kernels.fused.ffn_forward import Call, Weights
from lightning_mono.kernels.fused.launch import interpreted
from lightning_mono.kernels.fused.tuning import tiles_for
from torch import Tensor, nn

from lightning_mono.model.experts import SwiGLU

if TYPE_CHECKING:
    from lightning_mono.model.layout import ModalityLayout

DTYPES = (torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class Saving:
    """Whether gate and up are kept for the backward pass, or computed again in it."""

    activations: bool


SAVE = Saving(activations=True)
RECOMPUTE = Saving(activations=False)


def ffn(
    x: Tensor, layout: ModalityLayout, text: nn.Module, visual: nn.Module, saving: Saving = SAVE
) -> Tensor:
    """Each token through the SwiGLU of its modality; see :class:`Kernel`.

    The dtype of x is that of the computation and of the result, under autocast the dtype that
    autocast asks for; weights of another dtype are cast block by block, on the chip.

    Raises:
        ValueError: these modules, this dtype or this device cannot be served (:func:`why_not`), or
            the layout is of other tokens.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    reason = why_not(text, visual, x.dtype, x.device)
    if reason is not None:
        raise ValueError(reason)
    described = layout.text.count + layout.visual.count
    if described != len(x):  # Kernels follow the layout's row numbers, wherever they lead.
        raise ValueError(f"this is the layout of {described} tokens, but x has {len(x)}")
    weights = [getattr(m, name).weight for m in (text, visual) for name in ("gate", "up", "down")]
    learns = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *weights))
    if not learns and decode.suits(layout.text.count, layout.visual.count):
        side = text if layout.text.count else visual
        return decode.ffn(x, *(getattr(side, name).weight for name in ("gate", "up", "down")))
    save = learns and saving.activations
    y, _, _ = _ffn(x, layout.text.index, layout.visual.index, *weights, save)
    return y


def why_not(
    text: nn.Module, visual: nn.Module, dtype: torch.dtype, device: torch.device
) -> str | None:
    """Why the fused FFN cannot serve these modules; None if it can.

    Args:
        dtype: of the tokens, or of autocast.
        device: of the tokens.
    """
    reason = _why_not_on(device)
    if reason is not None:
        return reason
    if dtype not in DTYPES:
        # The products are summed in fp32, but SwiGLU's result and its gradients would be stored.
        why = " (gate * up overflows its range)" if dtype == torch.float16 else ""
        return f"the fused FFN computes in bf16 or fp32, not in {dtype}{why}"
    return _why_not_modules(text, visual)


@torch.compiler.assume_constant_result
def _why_not_on(device: torch.device) -> str | None:
    if device.type != "cuda" and not interpreted():
        return f"the fused FFN needs a CUDA device, and the model is on {device.type}"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        return f"the fused FFN needs compute capability 8.0, which {device} does not have"
    return None


def _why_not_modules(text: nn.Module, visual: nn.Module) -> str | None:
    for module in (text, visual):
        if type(module) is not SwiGLU:
            return f"the fused FFN serves SwiGLU, not {type(module).__name__}"
        for name, linear in module.named_children():
            if type(linear) is not nn.Linear:
                return f"the fused FFN reads plain linear layers; {name} is {_class_name(linear)}"
            if linear.bias is not None:
                return f"the fused FFN has no biases, but {name} has one"
            if linear.weight.dtype not in DTYPES:
                return f"the fused FFN reads bf16 or fp32 weights; {name} is {linear.weight.dtype}"
            if linear.weight.stride(1) != 1:
                return f"the fused FFN reads weights row by row; those of {name} are transposed"
        if len({linear.weight.dtype for linear in module.children()}) > 1:
            return "the fused FFN needs gate, up and down of one modality in one dtype"
        if any(size % 16 for size in module.gate.weight.shape):
            sizes = "x".join(map(str, module.gate.weight.shape[::-1]))
            return f"the fused FFN needs sizes that are multiples of 16, not {sizes}"
    return None


def _class_name(module: nn.Module) -> str:
    return f"{type(module).__module__.split('.')[0]}'s {type(module).__name__}"


@torch.library.custom_op("lightning_mono::ffn", mutates_args=())
def _ffn(
    x: Tensor,
    text_rows: Tensor,
    visual_rows: Tensor,
    text_gate: Tensor,
    text_up: Tensor,
    text_down: Tensor,
    visual_gate: Tensor,
    visual_up: Tensor,
    visual_down: Tensor,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The result, and gate and up before SwiGLU: of no rows unless they are to be saved."""
    text = Weights(text_gate, text_up, text_down)
    visual = Weights(visual_gate, visual_up, visual_down)
    call = Call(x, text_rows, visual_rows, text, visual)
    done = ffn_forward.forward(call, tiles_for(x, call.ffn), save=save)
    for launch in done.launches:
        launch.run()
    return done.y, done.gate, done.up


@_ffn.register_fake
def _(x: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    weight, save = others[2], others[-1]
    gate, up = (x.new_empty(x.shape[0] if save else 0, weight.shape[0]) for _ in range(2))
    return x.new_empty(x.shape), gate, up


@torch.library.custom_op("lightning_mono::ffn_backward", mutates_args=())
def _ffn_backward(
    dy: Tensor,
    x: Tensor,
    text_rows: Tensor,
    visual_rows: Tensor,
    text_gate: Tensor,
    text_up: Tensor,
    text_down: Tensor,
    visual_gate: Tensor,
    visual_up: Tensor,
    visual_down: Tensor,
    gate: Tensor,
    up: Tensor,
    needs: list[bool],
) -> list[Tensor]:
    """Gradients of x and the six weights; of no size where they are not needed."""
    text = Weights(text_gate, text_up, text_down)
    visual = Weights(visual_gate, visual_up, visual_down)
    call = Call(x, text_rows, visual_rows, text, visual)
    tiles = tiles_for(x, call.ffn)
    done = ffn_backward.backward(call, dy, gate, up, Needs(*needs), tiles)
    for launch in done.launches:
        launch.run()
    return [done.dx, *done.text, *done.visual]


@_ffn_backward.register_fake
def _(dy: Tensor, x: Tensor, *others: Any) -> list[Tensor]:
    weights, needs = others[2:8], Needs(*others[-1])
    asked = (
        (x, needs.x),
        *zip(weights[:3], (needs.text_in, needs.text_in, needs.text_down), strict=True),
        *zip(weights[3:], (needs.visual_in, needs.visual_in, needs.visual_down), strict=True),
    )
    return [t.new_empty(t.shape if asks else 0) for t, asks in asked]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, _ = inputs
    _, gate, up = output
    ctx.save_for_backward(*tensors, gate, up)
    # Nobody differentiates what was saved: no gradients of zeros are made for it.
    ctx.mark_non_differentiable(gate, up)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    x, _, _, *weights = ctx.needs_input_grad[:9]
    text, visual = weights[:3], weights[3:]
    needs = [x, text[0] or text[1], text[2], visual[0] or visual[1], visual[2]]
    dx, *gradients = _ffn_backward(dy, *ctx.saved_tensors, needs)
    asked = zip((x, *weights), (dx, *gradients), strict=True)
    dx, *gradients = (gradient if asks else None for asks, gradient in asked)
    return dx, None, None, *gradients, None


_ffn.register_autograd(_backward, setup_context=_setup_context)
