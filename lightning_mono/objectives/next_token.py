"""Next-token prediction, at the supervised positions only."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lightning_mono.model import Batch, MonoModel


def next_token_loss(model: MonoModel, batch: Batch, hidden: Tensor) -> Tensor:
    """Mean cross entropy over the batch's targets (Mono-InternVL, eq. 5).

    The head is the dearest layer, so it runs on the rows that predict something and no others.

    Args:
        hidden: the decoder's output for the batch, (batch, tokens, hidden).

    Returns:
        A scalar; 0 for a batch without targets.
    """
    rows = hidden.reshape(-1, hidden.shape[-1]).index_select(0, batch.predict)
    total = F.cross_entropy(model.logits(rows).float(), batch.targets, reduction="sum")
    return total / max(1, batch.targets.numel())
