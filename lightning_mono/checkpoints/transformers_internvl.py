"""transformers' InternVL (``InternVLForConditionalGeneration``), read as the published one.

Its folders hold the same numbers under other names, with queries, keys and values apart. What is
written is always the published layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_mono.backbones.families import find_family
from lightning_mono.backbones.shards import Weights
from lightning_mono.checkpoints.vision_config import TOWER
from lightning_mono.errors import CheckpointError

MODEL_TYPE = "internvl"

_OUTER = {
    "vision_tower.embeddings.cls_token": "vision_model.embeddings.class_embedding",
    "vision_tower.embeddings.position_embeddings": "vision_model.embeddings.position_embedding",
    "vision_tower.embeddings.patch_embeddings.projection": (
        "vision_model.embeddings.patch_embedding"
    ),
    "multi_modal_projector.layer_norm": "mlp1.0",
    "multi_modal_projector.linear_1": "mlp1.1",
    "multi_modal_projector.linear_2": "mlp1.3",
}
_LAYERS = "vision_tower.encoder.layer."
_LAYER = {
    "attention.q_proj": "attn.qkv",
    "attention.k_proj": "attn.qkv",
    "attention.v_proj": "attn.qkv",
    "attention.projection_layer": "attn.proj",
    "attention.q_norm": "attn.q_norm",
    "attention.k_norm": "attn.k_norm",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "lambda_1": "ls1",
    "lambda_2": "ls2",
}
_SAME = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "layer_norm_eps",
    "num_channels",
)
# What would change the numbers, and what it has to be.
_ONLY: dict[str, dict[str, Any]] = {
    "vision_config": {
        "use_mean_pooling": True,  # without it there is a norm behind the last layer
        "use_absolute_position_embeddings": True,
        "use_mask_token": False,
    },
    "": {"projector_hidden_act": "gelu", "vision_feature_select_strategy": "default"},
}


def published_entries(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of config.json as the published layout has them.

    Raises:
        CheckpointError: a setting that the published models do not have.
        KeyError: an entry is missing.
    """
    vision, text = entries["vision_config"], entries["text_config"]
    for section, allowed in _ONLY.items():
        for key, value in allowed.items():
            found = (entries[section] if section else entries).get(key, value)
            if found != value:
                raise CheckpointError(f"{section} {key} is {found!r}, not {value!r}".strip())
    tied = entries.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
    architecture = find_family(text["model_type"]).base + "ForCausalLM"
    kept = {key: entries[key] for key in ("torch_dtype", "dtype") if key in entries}
    return {
        **kept,
        "model_type": "internvl_chat",
        "vision_config": {
            "model_type": TOWER,
            "qk_normalization": vision.get("use_qk_norm", False),
            "qkv_bias": vision.get("attention_bias", False),
            "norm_type": vision.get("norm_type", "layer_norm"),
            "initializer_factor": vision.get("layer_scale_init_value", 0.1),
            "image_size": _side(vision, "image_size"),
            "patch_size": _side(vision, "patch_size"),
            **{key: vision[key] for key in _SAME if key in vision},
        },
        "llm_config": {**text, "architectures": [architecture], "tie_word_embeddings": tied},
        "select_layer": entries.get("vision_feature_layer", -1),
        "downsample_ratio": entries.get("downsample_ratio", 0.5),
        "ps_version": "v2",
        "img_context_token_id": entries["image_token_id"],
    }


class PublishedNames(Weights):
    """A folder's tensors under their published names, whichever names it has for them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._stored = Weights(folder)
        self._parts: dict[str, list[str]] = {}
        for name in sorted(self._stored.files, key=_order):
            self._parts.setdefault(_published(name), []).append(name)
        homes = self._stored.files
        self.files = {name: homes[parts[0]] for name, parts in self._parts.items()}

    def read(self, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
        parts = self._parts[name]
        if len(parts) == 1:
            return self._stored.read(parts[0], shape)
        own = shape and (shape[0] // len(parts), *shape[1:])
        return torch.cat([self._stored.read(part, own) for part in parts])


def _order(name: str) -> tuple[int, str]:
    """Queries before keys before values."""
    return next((n for n, kind in enumerate("qkv") if f".{kind}_proj." in name), 0), name


def _published(name: str) -> str:
    for theirs, ours in _OUTER.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    if not name.startswith(_LAYERS):
        return name
    number, _, inner = name.removeprefix(_LAYERS).partition(".")
    for theirs, ours in _LAYER.items():
        if inner.startswith(theirs):
            inner = ours + inner.removeprefix(theirs)
            break
    return f"vision_model.encoder.layers.{number}.{inner}"


def _side(vision: Mapping[str, Any], key: str) -> int:
    value = vision[key]
    sides = value if isinstance(value, list) else [value]
    if len(set(sides)) != 1:
        raise CheckpointError(f"vision_config {key} is {value}, which is no square")
    side: int = sides[0]
    return side
