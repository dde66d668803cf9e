"""Llama and its relatives (SmolLM2, TinyLlama, Llama 3.x): settings and tensor names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from lightning_mono.backbones.config import DecoderConfig, RopeScaling
from lightning_mono.errors import CheckpointError

# Our stem -> theirs, outside the layers and inside one; ".weight" and ".bias" follow.
HUGGINGFACE_NAMES = {
    "embed": "model.embed_tokens",
    "layers": "model.layers",
    "attention_norm.text": "input_layernorm",
    "attention.qkv.text.q": "self_attn.q_proj",
    "attention.qkv.text.k": "self_attn.k_proj",
    "attention.qkv.text.v": "self_attn.v_proj",
    "attention.out.text": "self_attn.o_proj",
    "ffn_norm.text": "post_attention_layernorm",
    "ffn.text.gate": "mlp.gate_proj",
    "ffn.text.up": "mlp.up_proj",
    "ffn.text.down": "mlp.down_proj",
    "norm": "model.norm",
    "head": "lm_head",
}
GGUF_NAMES = {
    "embed": "token_embd",
    "layers": "blk",
    "attention_norm.text": "attn_norm",
    "attention.qkv.text.q": "attn_q",
    "attention.qkv.text.k": "attn_k",
    "attention.qkv.text.v": "attn_v",
    "attention.out.text": "attn_output",
    "ffn_norm.text": "ffn_norm",
    "ffn.text.gate": "ffn_gate",
    "ffn.text.up": "ffn_up",
    "ffn.text.down": "ffn_down",
    "norm": "output_norm",
    "head": "output",
}


def from_huggingface(settings: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a ``config.json`` of model type ``llama`` describes.

    Raises:
        CheckpointError: a setting that changes the computation in a way that is not supported.
        KeyError: a setting is missing.
    """
    for key, supported in (("hidden_act", "silu"), ("mlp_bias", False)):
        if settings.get(key, supported) != supported:
            raise CheckpointError(f"{key} {settings[key]!r} is not supported, only {supported!r}")
    bias = settings.get("attention_bias", False)
    heads = settings["num_attention_heads"]
    # transformers 5 gathers what used to be rope_theta and rope_scaling in rope_parameters.
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    return DecoderConfig(
        family="llama",
        vocab_size=settings["vocab_size"],
        hidden_size=settings["hidden_size"],
        layers=settings["num_hidden_layers"],
        heads=heads,
        kv_heads=settings.get("num_key_value_heads") or heads,
        head_dim=settings.get("head_dim") or settings["hidden_size"] // heads,
        ffn_size=settings["intermediate_size"],
        rms_eps=settings.get("rms_norm_eps", 1e-6),
        rope_theta=rope.get("rope_theta", settings.get("rope_theta", 10_000.0)),
        rope_scaling=_scaling(rope),
        max_positions=settings.get("max_position_embeddings", 2048),
        qkv_bias=bias,
        out_bias=bias,
        tied=settings.get("tie_word_embeddings", False),
    )


def _scaling(rope: Mapping[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind in ("linear", "dynamic"):
        return RopeScaling(kind, rope["factor"])
    if kind == "llama3":
        return RopeScaling(
            "llama3",
            rope["factor"],
            low_freq_factor=rope["low_freq_factor"],
            high_freq_factor=rope["high_freq_factor"],
            original_positions=rope["original_max_position_embeddings"],
        )
    raise CheckpointError(f"rope scaling {kind!r} is not supported, only linear, dynamic, llama3")


def to_huggingface(config: DecoderConfig) -> dict[str, Any]:
    """The ``config.json`` of a decoder, without token ids: the inverse of `from_huggingface`.

    Raises:
        CheckpointError: biases that Llama's layout cannot express.
    """
    if config.qkv_bias != config.out_bias:
        raise CheckpointError("a Llama folder has biases on all of q, k, v, o or on none of them")
    settings: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.ffn_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_eps,
        "rope_theta": config.rope_theta,
        "max_position_embeddings": config.max_positions,
        "attention_bias": config.qkv_bias,
        "tie_word_embeddings": config.tied,
    }
    scaling = config.rope_scaling
    if scaling is not None:
        rope: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "llama3":
            rope["low_freq_factor"] = scaling.low_freq_factor
            rope["high_freq_factor"] = scaling.high_freq_factor
            rope["original_max_position_embeddings"] = scaling.original_positions
        settings["rope_scaling"] = rope
    return settings


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
