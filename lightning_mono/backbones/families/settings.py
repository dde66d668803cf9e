"""The keys of config.json that all Hugging Face decoder families share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_mono.backbones.config import DecoderConfig, RopeScaling
from lightning_mono.errors import CheckpointError

# Our stem -> theirs, outside the layers and inside one; ".weight" and ".bias" follow.
NAMES = {
    "embed": "model.embed_tokens",
    "layers": "model.layers",
    "attention_norm": "input_layernorm",
    "attention.qkv.q": "self_attn.q_proj",
    "attention.qkv.k": "self_attn.k_proj",
    "attention.qkv.v": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn.gate": "mlp.gate_proj",
    "ffn.up": "mlp.up_proj",
    "ffn.down": "mlp.down_proj",
    "norm": "model.norm",
    "head": "lm_head",
}


def read_common(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `DecoderConfig` that every family writes alike; defaults are transformers'.

    Raises:
        CheckpointError: a setting that changes the computation in a way that is not supported.
        KeyError: a setting is missing.
    """
    demand(settings, "hidden_act", "silu")
    heads = settings["num_attention_heads"]
    # transformers 5 gathers what used to be rope_theta and rope_scaling in rope_parameters.
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    return {
        "vocab_size": settings["vocab_size"],
        "hidden_size": settings["hidden_size"],
        "layers": settings["num_hidden_layers"],
        "heads": heads,
        "kv_heads": settings.get("num_key_value_heads") or heads,
        "head_dim": settings.get("head_dim") or settings["hidden_size"] // heads,
        "ffn_size": settings["intermediate_size"],
        "rms_eps": settings.get("rms_norm_eps", 1e-6),
        "rope_theta": rope.get("rope_theta", settings.get("rope_theta", 10_000.0)),
        "rope_scaling": _scaling(rope),
        "max_positions": settings.get("max_position_embeddings", 2048),
        "tied": settings.get("tie_word_embeddings", False),
    }


def demand(settings: Mapping[str, Any], key: str, *supported: Any) -> None:
    """Refuses a setting that would change what is computed; absent stands for the first.

    Raises:
        CheckpointError: it has another value.
    """
    value = settings.get(key, supported[0])
    if value not in supported:
        raise CheckpointError(f"{key} {value!r} is not supported, only {supported[0]!r}")


def write_common(config: DecoderConfig) -> dict[str, Any]:
    """The inverse of `read_common`."""
    return {
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
        "rope_scaling": _written(config.rope_scaling),
        "max_position_embeddings": config.max_positions,
        "tie_word_embeddings": config.tied,
    }


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


def _written(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    rope: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "llama3":
        rope["low_freq_factor"] = scaling.low_freq_factor
        rope["high_freq_factor"] = scaling.high_freq_factor
        rope["original_max_position_embeddings"] = scaling.original_positions
    return rope
