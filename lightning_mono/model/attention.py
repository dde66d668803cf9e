"""Grouped-query self-attention whose projections differ by modality where experts are placed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from lightning_mono.backbones.config import DecoderConfig
from lightning_mono.model.attend import attend, attend_by_document
from lightning_mono.model.cache import Cache
from lightning_mono.model.experts import QKV, Experts
from lightning_mono.model.layout import ModalityLayout
from lightning_mono.model.linear import Linear
from lightning_mono.model.positions import rotate
from lightning_mono.model.spans import Documents
from lightning_mono.model.wanted import Wanted

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
        documents: the spans that mask splits into, where they are attended to one by one.
        cache: where keys and values are kept; None outside generation.
        watch: is shown each layer's queries and keys, where there is one.
    """

    layout: ModalityLayout
    cos: Tensor
    sin: Tensor
    mask: Tensor | None
    documents: Documents | None = None
    cache: Cache | None = None
    watch: Watch | None = None


class Attention(nn.Module):
    """One joint causal softmax over all tokens; q, k, v and o may have visual experts (EViP++)."""

    def __init__(self, config: DecoderConfig, layer: int, *, visual: bool) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads = config.heads, config.kv_heads
        self.head_dim = config.head_dim
        out = Linear(self.heads * self.head_dim, config.hidden_size, bias=config.out_bias)
        self.qkv = Experts(QKV(config), visual=visual)
        self.out = Experts(out, visual=visual)

    def forward(
        self, x: Tensor, context: Context, norm: Experts, wanted: Wanted | None = None
    ) -> Tensor:
        """(batch, tokens, hidden), which ``norm`` norms -> the same, or (1, n, hidden) of n wanted.

        The norm is handed in because a kernel may do it as part of the projection.
        """
        if wanted is not None and wanted.last:
            return self._end(norm(x, context.layout), context, wanted)
        qkv = self._heads(self.qkv.after(norm, x, context.layout))
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        q = rotate(q, context.cos, context.sin)
        k, v = self._kept(k, v, context)
        if context.documents is not None:
            y = attend_by_document(q, k, v, context.documents)
        elif context.cache is not None:
            y = context.cache.attend(q, k, v, context.mask)
        else:
            y = attend(q, k, v, context.mask)
        if context.watch is not None:
            context.watch(self.layer, q, k, context.mask)
        y = y.transpose(1, 2).flatten(2)
        if wanted is None:
            return self.out(y, context.layout)
        return self.out(wanted.take(y), wanted.layout)

    def _end(self, x: Tensor, context: Context, wanted: Wanted) -> Tensor:
        """Keys and values of all normed tokens, and the rest for the end of each row at most."""
        kv = self._heads(self.qkv.part("keys_values", x, context.layout))
        k, v = kv.chunk(2, dim=1)
        k, v = self._kept(k, v, context)
        if context.watch is not None:
            q = self._heads(self.qkv.part("queries", x, context.layout))
            q = rotate(q, context.cos, context.sin)
            context.watch(self.layer, q, k, context.mask)
        if not wanted.count:
            return x[:1, :0]
        q = self._heads(self.qkv.part("queries", wanted.take(x), wanted.layout).transpose(0, 1))
        q = rotate(q, context.cos[:, :, -1:], context.sin[:, :, -1:])
        mask = None if context.mask is None else context.mask[:, :, -1:]
        y = attend(q, k, v, mask)
        return self.out(y.flatten(1)[None], wanted.layout)

    def _heads(self, x: Tensor) -> Tensor:
        """(batch, tokens, heads * head_dim) -> (batch, heads, tokens, head_dim)."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _kept(self, k: Tensor, v: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Rotated keys, and values: those of all that was read, where a cache keeps them."""
        k = rotate(k, context.cos, context.sin)
        return (k, v) if context.cache is None else context.cache.write(self.layer, k, v)


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
