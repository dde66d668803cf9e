"""Grouped-query self-attention whose projections differ by modality where experts are placed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mono.backbones.config import DecoderConfig
from lightning_mono.model.cache import Cache
from lightning_mono.model.experts import QKV, Experts
from lightning_mono.model.layout import ModalityLayout
from lightning_mono.model.positions import rotate

BLOCK = 2**19
"""Weights that are computed at a time, in numbers: 2 MiB of them."""


class Watch(Protocol):
    """Is shown what each layer attends with, as it comes; it computes what it wants of it.

    The rotated queries (batch, heads, tokens, head_dim), the keys of all that was read so far
    (batch, kv heads, keys, head_dim), and the allowed pairs (batch, 1, tokens, keys), None for
    plain causal: what :func:`attention_weights` takes.
    """

    def __call__(self, layer: int, q: Tensor, k: Tensor, mask: Tensor | None) -> None: ...


@dataclass
class Context:
    """What all layers of one forward pass share.

    Attributes:
        layout: the tokens' modalities.
        cos, sin: rotary tables, (batch, 1, tokens, head_dim).
        mask: allowed pairs, (batch, 1, tokens, keys) bool; None means plain causal (or, for a
            single query behind a cache, everything).
        cache: where keys and values are kept; None outside generation.
        watch: is shown each layer's queries and keys, where there is one.
    """

    layout: ModalityLayout
    cos: Tensor
    sin: Tensor
    mask: Tensor | None
    cache: Cache | None = None
    watch: Watch | None = None


class Attention(nn.Module):
    """One joint causal softmax over all tokens; q, k, v and o may have visual experts (EViP++)."""

    def __init__(self, config: DecoderConfig, layer: int, *, visual: bool) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads = config.heads, config.kv_heads
        self.head_dim = config.head_dim
        out = nn.Linear(self.heads * self.head_dim, config.hidden_size, bias=config.out_bias)
        self.qkv = Experts(QKV(config), visual=visual)
        self.out = Experts(out, visual=visual)

    def forward(self, x: Tensor, context: Context, norm: Experts) -> Tensor:
        """(batch, tokens, hidden), which ``norm`` norms -> the same shape.

        The norm is handed in because a kernel may do it as part of the projection.
        """
        batch, tokens, _ = x.shape
        heads = self.qkv.after(norm, x, context.layout).view(batch, tokens, -1, self.head_dim)
        heads = heads.transpose(1, 2)
        q, k, v = heads.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        q = rotate(q, context.cos, context.sin)
        k = rotate(k, context.cos, context.sin)
        if context.cache is not None:
            k, v = context.cache.write(self.layer, k, v)
        causal = context.mask is None and tokens > 1
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=context.mask,
            is_causal=causal,
            enable_gqa=self.heads != self.kv_heads,
        )
        if context.watch is not None:
            context.watch(self.layer, q, k, context.mask)
        y = y.transpose(1, 2).reshape(batch, tokens, self.heads * self.head_dim)
        return self.out(y, context.layout)


def attention_weights(
    q: Tensor,
    k: Tensor,
    mask: Tensor | None,
    rows: Tensor | None = None,
    heads: Sequence[int] | None = None,
) -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) where allowed, in fp32.

    It is computed in blocks of ``BLOCK`` numbers, so that the peak of memory is the result and
    little more, and without copying key-value heads for the heads that share them.

    Args:
        q: (batch, heads, tokens, head_dim).
        k: (batch, kv heads, keys, head_dim).
        mask: (batch, 1, tokens, keys) bool, or None for plain causal, the queries being the last.
        rows: which queries, (n,) int64 on the device of ``q``; by default all.
        heads: which heads, in this order; by default all.

    Returns:
        (batch, heads, n, keys) fp32; rows sum to 1, forbidden entries are 0.
    """
    batch, all_heads, tokens, width = q.shape
    keys, group = k.shape[2], all_heads // k.shape[1]
    rows = torch.arange(tokens, device=q.device) if rows is None else rows
    heads = range(all_heads) if heads is None else heads
    weights = torch.empty(batch, len(heads), len(rows), keys, device=q.device)
    for shared in sorted({head // group for head in heads}):
        key = k[:, shared, None].float().mT  # (batch, 1, head_dim, keys)
        places = [place for place, head in enumerate(heads) if head // group == shared]
        sharing = [heads[place] for place in places]
        at = 0
        for some in rows.split(max(BLOCK // (batch * len(places) * keys), 1)):
            with torch.autocast(q.device.type, enabled=False):
                scores = (q[:, :, some][:, sharing].float() @ key).mul_(width**-0.5)
            scores.masked_fill_(~_allowed(mask, some, tokens, keys), float("-inf"))
            weights[:, places, at : at + len(some)] = scores.softmax(dim=-1)
            at += len(some)
    return weights


def _allowed(mask: Tensor | None, rows: Tensor, tokens: int, keys: int) -> Tensor:
    """Allowed pairs of some rows: (batch or 1, 1, rows, keys) bool."""
    if mask is not None:
        return mask[:, :, rows]
    at = torch.arange(keys, device=rows.device)
    return (at <= rows[:, None] + (keys - tokens))[None, None]
