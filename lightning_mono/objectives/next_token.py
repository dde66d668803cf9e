"""Next-token prediction, at the supervised positions only."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lightning_mono.model import Batch, MonoModel


def next_token_loss(
    model: MonoModel, batch: Batch, hidden: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Weighted mean cross entropy over the batch's targets (Mono-InternVL, eq. 5).

    The head is the dearest layer, so it runs on the rows that predict something and no others.

    Args:
        hidden: the decoder's output for the batch, (batch, tokens, hidden).
        weight: what to divide by, a scalar; by default the batch's own weights. Over several
            ranks their mean, so that averaged gradients are those of one large batch.

    Returns:
        A scalar; 0 for a batch without targets.
    """
    rows = hidden.reshape(-1, hidden.shape[-1]).index_select(0, batch.predict)
    losses = F.cross_entropy(model.logits(rows).float(), batch.targets, reduction="none")
    weight = batch.weights.sum() if weight is None else weight
    return (losses * batch.weights).sum() / weight.clamp(min=1e-9)
