"""Llama and its relatives (SmolLM2, TinyLlama, Llama 3.x)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from lightning_mono.backbones.config import DecoderConfig, RopeScaling
from lightning_mono.backbones.families.settings import demand, read_common, write_common
from lightning_mono.errors import CheckpointError

GGUF_NAMES = {
    "embed": "token_embd",
    "layers": "blk",
    "attention_norm": "attn_norm",
    "attention.qkv.q": "attn_q",
    "attention.qkv.k": "attn_k",
    "attention.qkv.v": "attn_v",
    "attention.out": "attn_output",
    "ffn_norm": "ffn_norm",
    "ffn.gate": "ffn_gate",
    "ffn.up": "ffn_up",
    "ffn.down": "ffn_down",
    "norm": "output_norm",
    "head": "output",
}


def from_huggingface(settings: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a ``config.json`` of model type ``llama`` describes.

    Raises:
        CheckpointError: a setting that changes the computation in a way that is not supported.
        KeyError: a setting is missing.
    """
    demand(settings, "mlp_bias", False)
    bias = settings.get("attention_bias", False)
    return DecoderConfig("llama", **read_common(settings), qkv_bias=bias, out_bias=bias)


def to_huggingface(config: DecoderConfig) -> dict[str, Any]:
    """The inverse of `from_huggingface`.

    Raises:
        CheckpointError: biases that Llama's layout cannot express.
    """
    if config.qkv_bias != config.out_bias:
        raise CheckpointError("a Llama folder has biases on all of q, k, v, o or on none of them")
    return {**write_common(config), "attention_bias": config.qkv_bias}


def from_gguf(meta: Mapping[str, Any], names: Collection[str]) -> DecoderConfig:
    """The decoder that the metadata of a GGUF file of architecture ``llama`` describes.

    Args:
        meta: the file's key-value pairs.
        names: the file's tensor names; they tell what is tied and where biases are.

    Raises:
        CheckpointError: a setting that changes the computation in a way that is not supported.
        KeyError: a setting is missing.
    """
    heads, hidden = meta["llama.attention.head_count"], meta["llama.embedding_length"]
    head_dim = meta.get("llama.attention.key_length", hidden // heads)
    scaling = meta.get("llama.rope.scaling.type", "none")
    if scaling not in ("none", "linear") or "rope_freqs.weight" in names:
        raise CheckpointError("this rope scaling is not supported in GGUF, only linear")
    if meta.get("llama.rope.dimension_count", head_dim) != head_dim:
        raise CheckpointError("rotary positions on a part of each head are not supported")
    return DecoderConfig(
        family="llama",
        vocab_size=meta.get("llama.vocab_size") or len(meta["tokenizer.ggml.tokens"]),
        hidden_size=hidden,
        layers=meta["llama.block_count"],
        heads=heads,
        kv_heads=meta.get("llama.attention.head_count_kv", heads),
        head_dim=head_dim,
        ffn_size=meta["llama.feed_forward_length"],
        rms_eps=meta["llama.attention.layer_norm_rms_epsilon"],
        rope_theta=meta.get("llama.rope.freq_base", 10_000.0),
        rope_scaling=(
            RopeScaling("linear", meta["llama.rope.scaling.factor"])
            if scaling == "linear"
            else None
        ),
        max_positions=meta["llama.context_length"],
        qkv_bias="blk.0.attn_q.bias" in names,
        out_bias="blk.0.attn_output.bias" in names,
        tied="output.weight" not in names,
    )
