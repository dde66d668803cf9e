"""Each token through its own expert only: half the work of ``masked_dense``."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    y_text = text(layout.text.take(x))
    y_visual = visual(layout.visual.take(x))
    if layout.text.start is not None and layout.visual.start is not None:
        text_first = layout.text.start < layout.visual.start
        return torch.cat([y_text, y_visual] if text_first else [y_visual, y_text])
    out = y_text.new_empty(x.shape[0], y_text.shape[-1])
    out = out.index_copy(0, layout.text.index, y_text)
    return out.index_copy(0, layout.visual.index, y_visual.to(out.dtype))
