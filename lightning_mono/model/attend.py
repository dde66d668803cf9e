"""softmax(q k^T) v in fused kernels: for whole rows, for new tokens, document by document."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_mono.model.spans import Documents


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) v.

    Args:
        q: (batch, heads, tokens, head_dim).
        k, v: (batch, kv heads, keys, head_dim), each shared by heads / kv heads neighbours.
        mask: allowed pairs, (batch, 1, tokens, keys) bool; None means plain causal, or, for a
            single token, everything.

    Returns:
        (batch, heads, tokens, head_dim).
    """
    if q.shape[2] == 1:
        # A new token's heads that share keys become its queries: keys are read once for all.
        shared = q.view(q.shape[0], k.shape[1], -1, q.shape[3])
        return F.scaled_dot_product_attention(shared, k, v, attn_mask=mask).view_as(q)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=q.shape[1] != k.shape[1]
    )


def attend_by_document(q: Tensor, k: Tensor, v: Tensor, documents: Documents) -> Tensor:
    """The same, of the documents that the rows of a batch consist of.

    The work is the sum of their lengths' squares, and not the square of the sum. A split has one
    concatenation as its way back, where slices would each fill a gradient of full size.
    """
    batch, _, tokens, _ = q.shape
    parts = (_in_one_row(x).split(documents.lengths, dim=2) for x in (q, k, v))
    outputs = []
    for spans in zip(*parts, documents.spans, documents.masks, strict=True):
        q_span, k_span, v_span, span, mask = spans
        if span.padding:
            y = v_span.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
        else:
            y = attend(q_span, k_span, v_span, mask)
        outputs.append(y.transpose(1, 2))
    return torch.cat(outputs, dim=1).unflatten(1, (batch, tokens))[0].transpose(1, 2)


def _in_one_row(x: Tensor) -> Tensor:
    """(batch, heads, tokens, head_dim) -> (1, heads, batch * tokens, head_dim); often a view."""
    return x.transpose(1, 2).flatten(0, 1).transpose(0, 1)[None]
