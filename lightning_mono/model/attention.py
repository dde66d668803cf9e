"""Grouped-query self-attention whose projections differ by modality where experts are placed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mono.backbones.config import DecoderConfig
from lightning_mono.model.cache import KVCache
from lightning_mono.model.experts import QKV, Experts
from lightning_mono.model.layout import ModalityLayout
from lightning_mono.model.positions import rotate


@dataclass
class Context:
    """What all layers of one forward pass share.

    Attributes:
        layout: the tokens' modalities.
        cos, sin: rotary tables, (batch, 1, tokens, head_dim).
        mask: allowed pairs, (batch, 1, tokens, keys) bool; None means plain causal (or, for a
            single query behind a cache, everything).
        cache: where keys and values are kept; None outside generation.
        attentions: filled with softmax weights, one (batch, heads, tokens, keys) a layer, when
            it is a list.
    """

    layout: ModalityLayout
    cos: Tensor
    sin: Tensor
    mask: Tensor | None
    cache: KVCache | None = None
    attentions: list[Tensor] | None = None


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
        if context.attentions is not None:
            context.attentions.append(attention_weights(q, k, context.mask))
        y = y.transpose(1, 2).reshape(batch, tokens, self.heads * self.head_dim)
        return self.out(y, context.layout)


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) where allowed, in fp32.

    Args:
        q: (batch, heads, tokens, head_dim).
        k: (batch, kv heads, keys, head_dim).
        mask: (batch, 1, tokens, keys) bool, or None for plain causal.

    Returns:
        (batch, heads, tokens, keys) fp32; rows sum to 1, forbidden entries are 0.
    """
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scores = (q.float() @ k.float().transpose(2, 3)) * q.shape[-1] ** -0.5
    if mask is None:
        ones = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
        mask = ones.tril(scores.shape[-1] - scores.shape[-2])
    return scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)
