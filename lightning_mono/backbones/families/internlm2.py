"""InternLM2: Llama with q, k and v packed into one tensor, and names of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_mono.backbones.config import DecoderConfig
from lightning_mono.backbones.families.settings import read_common, write_common
from lightning_mono.errors import CheckpointError

NAMES = {
    "embed": "model.tok_embeddings",
    "layers": "model.layers",
    "attention_norm": "attention_norm",
    "attention.qkv.q": "attention.wqkv",
    "attention.qkv.k": "attention.wqkv",
    "attention.qkv.v": "attention.wqkv",
    "attention.out": "attention.wo",
    "ffn_norm": "ffn_norm",
    "ffn.gate": "feed_forward.w1",
    "ffn.up": "feed_forward.w3",
    "ffn.down": "feed_forward.w2",
    "norm": "model.norm",
    "head": "output",
}


def from_huggingface(settings: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a ``config.json`` of model type ``internlm2`` describes.

    Raises:
        CheckpointError: a setting that changes the computation in a way that is not supported.
        KeyError: a setting is missing.
    """
    bias = settings.get("bias", True)
    common = read_common({k: v for k, v in settings.items() if k != "head_dim"})
    return DecoderConfig("internlm2", **common, qkv_bias=bias, out_bias=bias)


def to_huggingface(config: DecoderConfig) -> dict[str, Any]:
    """The inverse of `from_huggingface`, in the words of InternLM2's own configuration class.

    Raises:
        CheckpointError: a shape that InternLM2's layout cannot express.
    """
    if config.qkv_bias != config.out_bias:
        raise CheckpointError("an InternLM2 folder has biases on all of q, k, v, o or on none")
    if config.head_dim * config.heads != config.hidden_size:
        raise CheckpointError("an InternLM2 folder has heads x head_dim equal to its hidden size")
    settings = write_common(config)
    del settings["head_dim"]
    scaling = config.rope_scaling
    if scaling is not None:
        if scaling.kind == "llama3":
            raise CheckpointError("an InternLM2 folder has linear or dynamic rope scaling only")
        # Its configuration class takes exactly these two keys, and a float.
        settings["rope_scaling"] = {"type": scaling.kind, "factor": float(scaling.factor)}
    return {**settings, "bias": config.qkv_bias}


def split(packed: Tensor, config: DecoderConfig) -> tuple[Tensor, ...]:
    """``wqkv`` to q, k and v.

    Args:
        packed: (kv_heads * (queries a group + 2) * head_dim, ...); in each group of heads the
            queries come first, then the key, then the value.
    """
    groups = packed.unflatten(0, (config.kv_heads, -1, config.head_dim))
    q, k, v = groups[:, :-2], groups[:, -2], groups[:, -1]
    return q.flatten(0, 2), k.flatten(0, 1), v.flatten(0, 1)


def join(parts: Sequence[Tensor], config: DecoderConfig) -> Tensor:
    """The inverse of `split`."""
    groups = [part.unflatten(0, (config.kv_heads, -1, config.head_dim)) for part in parts]
    return torch.cat(groups, dim=1).flatten(0, 2)
