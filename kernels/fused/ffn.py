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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from lightning_mono.kernels.contract import compute_dtype
from lightning_mono.kernels.fused import decode, ffn_backward, ffn_forward, serves
from lightning_mono.kernels.fused.ffn_backward import Needs
from lightning_mono.kernels.fused.ffn_forward import Call, Weights
from lightning_mono.kernels.fused.serves import Form
from lightning_mono.kernels.fused.tuning import Tiles, tiles_for
from lightning_mono.kernels.fused.weights import scales_of
from torch import Tensor, nn

from lightning_mono.model.experts import SwiGLU

if TYPE_CHECKING:
    from lightning_mono.model.layout import ModalityLayout


@dataclass(frozen=True)
class Saving:
    """Whether gate and up are kept for the backward pass, or computed again in it."""

    activations: bool


SAVE = Saving(activations=True)
RECOMPUTE = Saving(activations=False)


NAMES = Weights._fields


def ffn(
    x: Tensor, layout: ModalityLayout, text: nn.Module, visual: nn.Module, saving: Saving = SAVE
) -> Tensor:
    """Each token through the SwiGLU of its modality; see :class:`Kernel`.

    The dtype of x is that of the computation and of the result, under autocast the dtype that
    autocast asks for; weights of another dtype are cast block by block, on the chip. Ask
    :func:`why_not` before: nothing of it is checked here.

    Raises:
        ValueError: the layout is of other tokens.
    """
    x = x.to(compute_dtype(x))
    described = layout.text.count + layout.visual.count
    if described != len(x):  # Kernels follow the layout's row numbers, wherever they lead.
        raise ValueError(f"this is the layout of {described} tokens, but x has {len(x)}")
    weights = [getattr(m, name).weight for m in (text, visual) for name in NAMES]
    scales = scales_of(getattr(text, name) for name in NAMES)
    learns = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *weights))
    if not learns and decode.suits(layout.text.count, layout.visual.count):
        if layout.text.count:
            return decode.ffn(x, weights[:3], scales)
        return decode.ffn(x, weights[3:], [])
    save = learns and saving.activations
    y, _, _ = _ffn(x, layout.text.index, layout.visual.index, *weights, scales, save)
    return y


def why_not(
    text: nn.Module, visual: nn.Module, dtype: torch.dtype, device: torch.device
) -> str | None:
    """Why the fused FFN cannot serve these modules; None if it can.

    Args:
        dtype: of the tokens, or of autocast.
        device: of the tokens.
    """
    for module in (text, visual):
        if type(module) is not SwiGLU:
            return f"the fused FFN serves SwiGLU, not {type(module).__name__}"
    sides = [tuple(Form.of(name, getattr(m, name)) for name in NAMES) for m in (text, visual)]
    biased = next((form.name for form in (*sides[0], *sides[1]) if form.biased), None)
    if biased is not None:
        return f"the fused FFN has no biases, but {biased} has one"
    return serves.why_not(*sides, dtype, device)


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
    text_scales: Sequence[Tensor],
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The result, and gate and up before SwiGLU: of no rows unless they are to be saved."""
    text = Weights(text_gate, text_up, text_down)
    visual = Weights(visual_gate, visual_up, visual_down)
    call = Call(x, text_rows, visual_rows, text, visual, text_scales)
    done = ffn_forward.forward(call, tiles_for(Tiles, x, call.shape), save=save)
    for launch in done.launches:
        launch.run()
    return done.y, done.gate, done.up


@_ffn.register_fake
def _(x: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    visual_gate, save = others[5], others[-1]
    gate, up = (x.new_empty(x.shape[0] if save else 0, visual_gate.shape[0]) for _ in range(2))
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
    text_scales: Sequence[Tensor],
    gate: Tensor,
    up: Tensor,
    needs: list[bool],
) -> list[Tensor]:
    """Gradients of x and the six weights; of no size where they are not needed."""
    text = Weights(text_gate, text_up, text_down)
    visual = Weights(visual_gate, visual_up, visual_down)
    call = Call(x, text_rows, visual_rows, text, visual, text_scales)
    tiles = tiles_for(Tiles, x, call.shape)
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
    *tensors, scales, _ = inputs
    _, gate, up = output
    ctx.save_for_backward(*tensors, gate, up, *scales)
    # Nobody differentiates what was saved: no gradients of zeros are made for it.
    ctx.mark_non_differentiable(gate, up)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Any, ...]:
    x, _, _, *weights = ctx.needs_input_grad[:9]
    text, visual = weights[:3], weights[3:]
    needs = [x, text[0] or text[1], text[2], visual[0] or visual[1], visual[2]]
    saved = ctx.saved_tensors  # Read once: a checkpoint computes them in between.
    operands, (gate, up), scales = saved[:9], saved[9:11], saved[11:]
    dx, *gradients = _ffn_backward(dy, *operands, scales, gate, up, needs)
    asked = zip((x, *weights), (dx, *gradients), strict=True)
    dx, *gradients = (gradient if asks else None for asks, gradient in asked)
    return dx, None, None, *gradients, [None] * len(scales), None


_ffn.register_autograd(_backward, setup_context=_setup_context)
