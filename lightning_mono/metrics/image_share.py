"""How much of a model's attention goes to images: the field's early sign of whether it looks."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_mono.model import Batch
from lightning_mono.model.mask import batch_mask


def image_share(attention: Tensor, visual: Tensor, queries: Tensor) -> Tensor:
    """The share of attention that falls on visual keys, averaged over heads and queries; a scalar.

    Args:
        attention: softmax weights, (batch, heads, tokens, keys).
        visual: which keys are visual, (batch, keys) bool.
        queries: which positions count, (batch, tokens) bool; NaN where none does.
    """
    on_images = (attention * visual[:, None, None, :]).sum(-1).mean(1)  # (batch, tokens)
    return on_images[queries].mean()


def asking(batch: Batch) -> Tensor:
    """Positions that predict a supervised token and have an image to look at: (batch, tokens)."""
    mask = batch_mask(batch)
    if mask is None:
        width = batch.input_ids.shape[1]
        mask = torch.ones(width, width, dtype=torch.bool, device=batch.input_ids.device).tril()
        mask = mask[None, None]
    sees = (mask[:, 0] & batch.layout.mask[:, None, :]).any(-1)
    predicts = torch.zeros_like(sees).view(-1)
    predicts[batch.predict] = True
    return sees & predicts.view_as(sees)
