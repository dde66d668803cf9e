"""Qwen3 (dense): Llama with an RMSNorm on every query and key head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_mono.backbones.config import DecoderConfig
from lightning_mono.backbones.families.settings import NAMES as COMMON
from lightning_mono.backbones.families.settings import demand, read_common, write_common
from lightning_mono.errors import CheckpointError

NAMES = {
    **COMMON,
    "attention.qkv.q_norm": "self_attn.q_norm",
    "attention.qkv.k_norm": "self_attn.k_norm",
}


def from_huggingface(settings: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a ``config.json`` of model type ``qwen3`` describes.

    Raises:
        CheckpointError: a setting that changes the computation in a way that is not supported.
        KeyError: a setting is missing.
    """
    demand(settings, "use_sliding_window", False)
    bias = settings.get("attention_bias", False)
    common = read_common({"head_dim": 128, **settings})  # transformers' default, not width / heads
    return DecoderConfig("qwen3", **common, qkv_bias=bias, out_bias=bias, qk_norm=True)


def to_huggingface(config: DecoderConfig) -> dict[str, Any]:
    """The inverse of `from_huggingface`.

    Raises:
        CheckpointError: biases that Qwen3's layout cannot express.
    """
    if config.qkv_bias != config.out_bias:
        raise CheckpointError("a Qwen3 folder has biases on all of q, k, v, o or on none of them")
    extra = {"attention_bias": config.qkv_bias, "use_sliding_window": False}
    return {**write_common(config), **extra}
