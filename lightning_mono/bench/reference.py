"""The official code's way through a model, on the weights of one of ours.

What it does, step by step (OpenGVLab/Mono-InternVL at 7c2b248, ``modeling_internlm2_ve.py`` with
eager attention, and ``modeling_internvl_chat.py``):

- image features are written into the embeddings through a boolean mask;
- a causal mask of numbers, (batch, 1, tokens, keys), is built, and added to the scores;
- norms are computed step by step in fp32;
- key-value heads are repeated for all query heads; scores, softmax in fp32, product with values;
- the cache is concatenated anew in each step;
- without a cache both FFNs see every token and are blended by the mask, eq. 3; behind a cache only
  the text's runs;
- logits are computed at all positions, in fp32; the loss picks from them.

Two things cost less here than there: rotary tables are made once a pass, not looked up in every
layer, and activation checkpointing, which its fine-tuning has on, is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mono.model import Batch, MonoModel
from lightning_mono.model.attention import Attention
from lightning_mono.model.decoder import Block
from lightning_mono.model.experts import QKV, Experts, RMSNorm, SwiGLU
from lightning_mono.model.positions import rotary_tables, rotate

Cache = list[tuple[Tensor, Tensor]]
"""Keys and values by layer, (batch, kv heads, tokens, head_dim) each."""


@dataclass(frozen=True)
class _Pass:
    """What the layers of one pass share.

    Attributes:
        visual: 1 where a token is visual, (batch, tokens, 1); None behind a cache.
        mask: what is added to scores, (batch, 1, tokens, keys).
        cos, sin: rotary tables.
    """

    visual: Tensor | None
    mask: Tensor
    cos: Tensor
    sin: Tensor


def forward(
    model: MonoModel, ids: Tensor, pixels: Tensor | None = None, cache: Cache | None = None
) -> tuple[Tensor, Cache]:
    """Reads new tokens behind a cache.

    Args:
        ids: (batch, tokens), without padding.
        pixels: tiles of the images in them; none behind a cache.

    Returns:
        Logits (batch, tokens, vocabulary) in fp32, and the cache with the new tokens.
    """
    x = model.embed(ids).clone()
    image_id = model.config.image_context_id
    assert image_id is not None
    selected = ids == image_id
    if pixels is not None:
        assert model.patchifier is not None
        x[selected] = x[selected] * 0.0 + model.patchifier(pixels).flatten(0, 1)
    past = cache[0][0].shape[2] if cache else 0
    tokens = ids.shape[1]
    at = torch.arange(past, past + tokens, device=ids.device)[None]
    cos, sin = rotary_tables(model.config.decoder, at, past + tokens)
    visual = None if cache else selected[:, :, None].to(x.dtype)
    run = _Pass(visual, _causal(len(ids), tokens, past, x), cos, sin)
    kept: Cache = []
    for number, layer in enumerate(model.layers):
        assert isinstance(layer, Block)
        x, keys, values = _layer(layer, x, run, cache[number] if cache else None)
        kept.append((keys, values))
    hidden = _normed(model.norm, x)
    head = model.embed.weight if model.head is None else model.head.weight
    return F.linear(hidden, head).float(), kept


def loss(model: MonoModel, batch: Batch) -> Tensor:
    """Mean cross entropy of a batch of one document a row, over its targets; a scalar."""
    labels = torch.full_like(batch.input_ids, -100).flatten()
    labels[batch.predict + 1] = batch.targets
    labels = labels.view_as(batch.input_ids)
    logits, _ = forward(model, batch.input_ids, batch.pixel_values)
    shifted = logits[:, :-1].contiguous().view(-1, logits.shape[-1])
    return F.cross_entropy(shifted, labels[:, 1:].contiguous().view(-1))


def _causal(batch: int, tokens: int, past: int, like: Tensor) -> Tensor:
    """The least number where a key comes after its query, (batch, 1, tokens, keys)."""
    least = torch.finfo(like.dtype).min
    mask = torch.full((tokens, tokens), least, device=like.device, dtype=like.dtype)
    mask.triu_(1)
    mask = torch.cat([mask.new_zeros(tokens, past), mask], dim=1)
    padding = mask.new_zeros(batch, 1, tokens, past + tokens)
    return padding + mask


def _layer(
    layer: Block, x: Tensor, run: _Pass, cached: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor, Tensor]:
    mixed, keys, values = _attention(
        layer.attention, _blend(layer.attention_norm, x, run), run, cached
    )
    x = x + mixed
    return x + _blend(layer.ffn, _blend(layer.ffn_norm, x, run), run), keys, values


def _attention(
    attention: Attention, x: Tensor, run: _Pass, cached: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor, Tensor]:
    batch, tokens, _ = x.shape
    heads = _blend(attention.qkv, x, run).view(batch, tokens, -1, attention.head_dim)
    sizes = [attention.heads, attention.kv_heads, attention.kv_heads]
    queries, keys, values = heads.transpose(1, 2).split(sizes, dim=1)
    queries, keys = rotate(queries, run.cos, run.sin), rotate(keys, run.cos, run.sin)
    if cached is not None:
        keys, values = torch.cat([cached[0], keys], 2), torch.cat([cached[1], values], 2)
    every_key, every_value = (_repeated(kind, attention.heads) for kind in (keys, values))
    scores = queries @ every_key.transpose(2, 3) / math.sqrt(attention.head_dim)
    scores = scores + run.mask
    weights = scores.softmax(-1, dtype=torch.float32).to(queries.dtype)
    y = (weights @ every_value).transpose(1, 2).contiguous().flatten(2)
    return _blend(attention.out, y, run), keys, values


def _repeated(x: Tensor, heads: int) -> Tensor:
    """(batch, kv heads, keys, head_dim) -> (batch, heads, keys, head_dim), copied."""
    batch, groups, keys, width = x.shape
    if groups == heads:
        return x
    wide = x[:, :, None].expand(batch, groups, heads // groups, keys, width)
    return wide.reshape(batch, heads, keys, width)


def _blend(experts: Experts, x: Tensor, run: _Pass) -> Tensor:
    """text(x) (1 - m) + visual(x) m; the text's alone where there is no other, or a cache."""
    text = _serve(experts.text, x)
    if experts.visual is None or run.visual is None:
        return text
    return text * (1.0 - run.visual) + _serve(experts.visual, x) * run.visual


def _serve(module: nn.Module, x: Tensor) -> Tensor:
    match module:
        case RMSNorm():
            return _normed(module, x)
        case SwiGLU():
            gate, up = _plain(module.gate, x), _plain(module.up, x)
            return _plain(module.down, F.silu(gate) * up)
        case QKV():
            q, k = (
                _head_normed(_plain(module.q, x), module.q_norm),
                _head_normed(_plain(module.k, x), module.k_norm),
            )
            return torch.cat([q, k, _plain(module.v, x)], dim=-1)
        case nn.Linear():
            return _plain(module, x)
        case _:
            out: Tensor = module(x)
            return out


def _plain(linear: nn.Linear, x: Tensor) -> Tensor:
    """PyTorch's own product, which is not always ours (`lightning_mono.model.linear`)."""
    return F.linear(x, linear.weight, linear.bias)


def _normed(norm: RMSNorm, x: Tensor) -> Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.eps)
    return norm.weight * wide.to(x.dtype)


def _head_normed(x: Tensor, norm: RMSNorm | None) -> Tensor:
    if norm is None:
        return x
    width = norm.weight.shape[0]
    return _normed(norm, x.unflatten(-1, (-1, width))).flatten(-2)
