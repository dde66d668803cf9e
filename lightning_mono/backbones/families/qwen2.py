"""Qwen2 and Qwen2.5: Llama with biases on q, k and v."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_mono.backbones.config import DecoderConfig
from lightning_mono.backbones.families.settings import demand, read_common, write_common
from lightning_mono.errors import CheckpointError


def from_huggingface(settings: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a ``config.json`` of model type ``qwen2`` describes.

    Raises:
        CheckpointError: a setting that changes the computation in a way that is not supported.
        KeyError: a setting is missing.
    """
    demand(settings, "use_sliding_window", False)
    return DecoderConfig("qwen2", **read_common(settings), qkv_bias=True)


def to_huggingface(config: DecoderConfig) -> dict[str, Any]:
    """The inverse of `from_huggingface`.

    Raises:
        CheckpointError: biases that Qwen2's layout cannot express.
    """
    if not config.qkv_bias or config.out_bias:
        raise CheckpointError("a Qwen2 folder has biases on q, k and v and none on o")
    return {**write_common(config), "use_sliding_window": False}
