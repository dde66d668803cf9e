"""Each token through its own expert only: half the work of ``masked_dense``.

Taking the rows of two modalities and putting rows back are each other's transpose, so the gradient
of one is the other. Said to autograd as such, every row is copied once on each way; composed from
``index_select`` and ``index_copy``, each way back would fill, copy and add whole tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning_mono.kernels.contract import keep_in_graph
from torch import Tensor, nn

if TYPE_CHECKING:
    from lightning_mono.model.layout import ModalityLayout


def gathered(x: Tensor, layout: ModalityLayout, text: nn.Module, visual: nn.Module) -> Tensor:
    """Takes each modality's rows (a slice where they are one run), computes, puts them back."""
    if layout.visual.count == 0:
        return keep_in_graph(text(x), x, visual)
    if layout.text.count == 0:
        return keep_in_graph(visual(x), x, text)
    x_text, x_visual = _Split.apply(x, layout)
    y_text, y_visual = text(x_text), visual(x_visual)
    return _Join.apply(y_text, y_visual.to(y_text.dtype), layout)


class _Split(torch.autograd.Function):
    """(tokens, width) -> the text rows and the visual rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layout: ModalityLayout) -> tuple[Tensor, Tensor]:
        ctx.layout = layout
        return layout.text.take(x), layout.visual.take(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _put_back(grads[0], grads[1], ctx.layout), None


class _Join(torch.autograd.Function):
    """The text rows and the visual rows -> (tokens, width)."""

    @staticmethod
    def forward(ctx: Any, y_text: Tensor, y_visual: Tensor, layout: ModalityLayout) -> Tensor:
        ctx.layout = layout
        return _put_back(y_text, y_visual, layout)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        return ctx.layout.text.take(grads[0]), ctx.layout.visual.take(grads[0]), None


def _put_back(text: Tensor, visual: Tensor, layout: ModalityLayout) -> Tensor:
    """Rows of either modality to their places; together they fill every place once."""
    out = text.new_empty(layout.mask.numel(), text.shape[-1])
    layout.text.put(text, out)
    layout.visual.put(visual, out)
    return out
