"""Who may look at whom: built once a batch, shared by all layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightning_mono.model.batch import Batch


def batch_mask(batch: Batch) -> Tensor | None:
    """Allowed pairs of a batch, (batch, 1, tokens, tokens) bool; None where plain causal is all.

    Token i sees token j when j is not after i, both are of one document, and j is in the
    document's shared prefix (branch 0) or in i's own branch. A padded token sees itself alone, so
    that its softmax has something to divide by.
    """
    if batch.plain:
        return None
    return allowed_pairs(batch.documents, batch.branches, batch.documents, batch.branches, offset=0)


def allowed_pairs(
    documents: Tensor,
    branches: Tensor,
    key_documents: Tensor,
    key_branches: Tensor,
    *,
    offset: int,
) -> Tensor:
    """The rule of :func:`batch_mask` for queries (batch, n) that stand ``offset`` keys in.

    Returns:
        (batch, 1, n, keys) bool.
    """
    same = (documents[:, :, None] == key_documents[:, None, :]) & (documents != 0)[:, :, None]
    in_reach = (key_branches == 0)[:, None, :] | (branches[:, :, None] == key_branches[:, None, :])
    query_at = torch.arange(documents.shape[1], device=documents.device) + offset
    key_at = torch.arange(key_documents.shape[1], device=documents.device)
    causal = key_at[None, :] <= query_at[:, None]
    itself = key_at[None, :] == query_at[:, None]
    return ((same & in_reach & causal) | itself)[:, None]
