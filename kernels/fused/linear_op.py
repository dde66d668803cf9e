"""The operators behind the projections, as autograd and ``torch.compile`` see them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from lightning_mono.kernels.fused import decode
from lightning_mono.kernels.fused.linear_backward import (
    input_gradient,
    norm_gradient,
    weight_gradients,
)
from lightning_mono.kernels.fused.linear_forward import forward
from lightning_mono.kernels.fused.linear_tiles import Pair, Rows, rows_contiguous
from lightning_mono.kernels.fused.tuning import LinearTiles, tiles_for
from torch import Tensor


@torch.library.custom_op("lightning_mono::linear", mutates_args=())
def project(
    x: Tensor,
    text_rows: Tensor,
    visual_rows: Tensor,
    text: Sequence[Tensor],
    visual: Sequence[Tensor],
    text_biases: Sequence[Tensor],
    visual_biases: Sequence[Tensor],
    norms: Sequence[Tensor],
    text_scales: Sequence[Tensor],
    eps: float,
) -> tuple[Tensor, Tensor]:
    """The projections, and 1 / rms of each row (empty without norms)."""
    pair = Pair.of(text, visual, text_biases, visual_biases, norms, text_scales)
    rows = Rows(text_rows, visual_rows)
    x = rows_contiguous(x)
    if decode.suits(*rows.counts):
        launches, y, inverse = decode.projections(x, rows, pair, eps)
    else:
        tile = tiles_for(LinearTiles, x, pair.shape).project
        launches, y, inverse = forward(x, rows, pair, eps, tile)
    for launch in launches:
        launch.run()
    return y, inverse


@project.register_fake
def _(
    x: Tensor,
    text_rows: Tensor,
    visual_rows: Tensor,
    text: Sequence[Tensor],
    visual: Sequence[Tensor],
    text_biases: Sequence[Tensor],
    visual_biases: Sequence[Tensor],
    norms: Sequence[Tensor],
    text_scales: Sequence[Tensor],
    eps: float,
) -> tuple[Tensor, Tensor]:
    return Pair.of(text, visual, text_biases, visual_biases, norms, text_scales).results(x)


@torch.library.custom_op("lightning_mono::linear_backward", mutates_args=())
def project_backward(
    dy: Tensor,
    x: Tensor,
    inverse: Tensor,
    text_rows: Tensor,
    visual_rows: Tensor,
    text: Sequence[Tensor],
    visual: Sequence[Tensor],
    text_biases: Sequence[Tensor],
    visual_biases: Sequence[Tensor],
    norms: Sequence[Tensor],
    text_scales: Sequence[Tensor],
    needs: Sequence[bool],
) -> list[Tensor]:
    """Gradients of x, of text's and visual's weights, biases and norms; empty where not needed.

    Args:
        needs: whether x, text's parameters, visual's parameters and the norms have gradients.
    """
    pair = Pair.of(text, visual, text_biases, visual_biases, norms, text_scales)
    rows = Rows(text_rows, visual_rows)
    dy, x = rows_contiguous(dy), rows_contiguous(x)
    tiles = tiles_for(LinearTiles, x, pair.shape)
    needs_x, needs_text, needs_visual, needs_norms = needs
    dx, norm_text, norm_visual = (x.new_empty(0) for _ in range(3))
    if needs_x or needs_norms:
        launch, dx = input_gradient(dy, rows, pair, tiles.input_gradient)
        launch.run()
    if norms and (needs_x or needs_norms):
        launch, shares = norm_gradient(dx, x, inverse, rows, pair)
        launch.run()
        if needs_norms:
            norm_text, norm_visual = (
                share.sum(0).to(norm.dtype) for share, norm in zip(shares, norms, strict=True)
            )
    trains, tile = (needs_text, needs_visual), tiles.weight_gradient
    launch, grads = weight_gradients(dy, x, inverse, rows, pair, trains, tile)
    launch.run()
    return [dx, *grads, norm_text, norm_visual]


@project_backward.register_fake
def _(
    dy: Tensor,
    x: Tensor,
    inverse: Tensor,
    text_rows: Tensor,
    visual_rows: Tensor,
    text: Sequence[Tensor],
    visual: Sequence[Tensor],
    text_biases: Sequence[Tensor],
    visual_biases: Sequence[Tensor],
    norms: Sequence[Tensor],
    text_scales: Sequence[Tensor],
    needs: Sequence[bool],
) -> list[Tensor]:
    pair = Pair.of(text, visual, text_biases, visual_biases, norms, text_scales)
    needs_x, needs_text, needs_visual, needs_norms = needs
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    scales = [torch.empty_like(norm) for norm in norms if needs_norms]
    return [
        dx if needs_x or needs_norms else x.new_empty(0),
        *pair.gradients(x, (needs_text, needs_visual)),
        *(scales or [x.new_empty(0), x.new_empty(0)]),
    ]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, text_rows, visual_rows, *lists, _ = inputs
    # Nobody differentiates the norms' factors: no gradients of zeros are made for them.
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.lengths = [len(tensors) for tensors in lists]
    ctx.save_for_backward(x, output[1], text_rows, visual_rows, *chain(*lists))


def _backward(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Any, ...]:
    x, inverse, text_rows, visual_rows, *flat = ctx.saved_tensors
    rest = iter(flat)
    lists = [[next(rest) for _ in range(length)] for length in ctx.lengths]
    needs_x, _, _, *needed, _ = ctx.needs_input_grad
    text, visual, text_biases, visual_biases, norms, _ = needed
    needs = [needs_x, any(text + text_biases), any(visual + visual_biases), any(norms)]
    dx, *grads, norm_text, norm_visual = project_backward(
        dy, x, inverse, text_rows, visual_rows, *lists, needs
    )
    sizes = [weight.shape[0] for weight in lists[1]]  # Visual weights are plain.
    parts = [_parted(grad, sizes, need) for grad, need in zip(grads, needed[:4], strict=True)]
    both = (norm_text, norm_visual)[: len(norms)]
    scales = [scale if need else None for scale, need in zip(both, norms, strict=True)]
    return dx if needs_x else None, None, None, *parts, scales, [None] * len(lists[5]), None


def _parted(grad: Tensor, sizes: list[int], needs: list[bool]) -> list[Tensor | None]:
    """The gradients of the weights that stand side by side, where they need one."""
    if not any(needs):
        return [None] * len(needs)
    return [part if need else None for part, need in zip(grad.split(sizes), needs, strict=True)]


project.register_autograd(_backward, setup_context=_save)
