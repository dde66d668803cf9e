"""``vision_config``: a patchifier in the words of InternVL's config.json.

- ``intern_vit_patch`` is Mono-InternVL's, without a transformer;
- ``intern_vit_6b`` is InternViT, of whatever size: InternVL's modular models have it;
- ``mono_patchifier`` are those that the official code does not have, with their ``kind``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_mono.errors import CheckpointError
from lightning_mono.model.config import (
    NORM_KINDS,
    PATCHIFIER_KINDS,
    PatchifierConfig,
    PatchifierKind,
    VitConfig,
)

PUBLISHED, TOWER, OTHER = "intern_vit_patch", "intern_vit_6b", "mono_patchifier"
_ARCHITECTURES = {
    PUBLISHED: "InternVisionPatchModel",
    TOWER: "InternVisionModel",
    OTHER: "MonoPatchifierModel",
}
_KINDS: dict[str, PatchifierKind] = {PUBLISHED: "conv", TOWER: "vit"}
_OTHERS = tuple(kind for kind in PATCHIFIER_KINDS if kind not in _KINDS.values())


def read_patchifier(entries: Mapping[str, Any], vision: Mapping[str, Any]) -> PatchifierConfig:
    """A patchifier by the entries of config.json and their ``vision_config``.

    Raises:
        CheckpointError: it is of a kind or shape that is not supported.
        KeyError: an entry is missing.
    """
    kind = _kind(vision)
    if vision.get("num_channels", 3) != 3:
        raise CheckpointError(f"vision_config.num_channels is {vision['num_channels']}, not 3")
    ratio = entries.get("downsample_ratio", 0.5)
    merge = round(1 / ratio) if ratio else 0
    if not merge or 1 / merge != ratio:
        raise CheckpointError(f"downsample_ratio {ratio} is not one over a whole number")
    order = entries.get("ps_version", "v1")
    if order not in ("v1", "v2"):
        raise CheckpointError(f"ps_version {order!r} is neither 'v1' nor 'v2'")
    if kind == "vit" and entries.get("select_layer", -1) != -1:
        raise CheckpointError(f"select_layer is {entries['select_layer']}; only -1 is supported")
    table = vision["image_size"]
    size = entries.get("force_image_size") or table
    return PatchifierConfig(
        image_size=size,
        patch_size=vision["patch_size"],
        width=vision["hidden_size"],
        merge=merge,
        order=order,
        table_size=table if table != size else None,
        kind=kind,
        vit=read_vit(vision) if kind == "vit" else None,
    )


def read_vit(vision: Mapping[str, Any]) -> VitConfig:
    """InternViT's layers; where an entry is left out, its class's default holds.

    Raises:
        CheckpointError: they are of a kind that is not supported.
        KeyError: an entry is missing.
    """
    activation, norm = vision.get("hidden_act", "gelu"), vision.get("norm_type", "rms_norm")
    if activation != "gelu":
        raise CheckpointError(f"vision_config.hidden_act {activation!r} is not 'gelu'")
    if norm not in NORM_KINDS:
        raise CheckpointError(f"vision_config.norm_type {norm!r} is none of {NORM_KINDS}")
    return VitConfig(
        layers=vision["num_hidden_layers"],
        heads=vision["num_attention_heads"],
        mlp_ratio=vision["intermediate_size"] / vision["hidden_size"],
        norm=norm,
        qk_norm=vision.get("qk_normalization", True),
        qkv_bias=vision.get("qkv_bias", False),
        eps=vision.get("layer_norm_eps", 1e-6),
        layer_scale=vision.get("initializer_factor", 0.1),
    )


def vision_settings(patchifier: PatchifierConfig) -> dict[str, Any]:
    """The inverse of :func:`read_patchifier`, as far as ``vision_config`` goes."""
    model_type = next((name for name, kind in _KINDS.items() if kind == patchifier.kind), OTHER)
    return {
        "architectures": [_ARCHITECTURES[model_type]],
        "model_type": model_type,
        **({"kind": patchifier.kind} if model_type == OTHER else {}),
        "patch_size": patchifier.patch_size,
        "image_size": patchifier.table_size or patchifier.image_size,
        "hidden_size": patchifier.width,
        "num_channels": 3,
        **(_vit_settings(patchifier.vit, patchifier.width) if patchifier.vit else {}),
    }


def _vit_settings(vit: VitConfig, width: int) -> dict[str, Any]:
    return {
        "num_hidden_layers": vit.layers,
        "num_attention_heads": vit.heads,
        "intermediate_size": vit.mlp_size(width),
        "hidden_act": "gelu",
        "norm_type": vit.norm,
        "qk_normalization": vit.qk_norm,
        "qkv_bias": vit.qkv_bias,
        "layer_norm_eps": vit.eps,
        "initializer_factor": vit.layer_scale,
    }


def _kind(vision: Mapping[str, Any]) -> PatchifierKind:
    model_type = vision.get("model_type")
    if model_type in _KINDS:
        return _KINDS[model_type]
    if model_type != OTHER:
        raise CheckpointError(
            f"vision_config.model_type {model_type!r} is not supported; {PUBLISHED!r} is "
            f"Mono-InternVL's, {TOWER!r} InternVL's"
        )
    if vision["kind"] not in _OTHERS:
        raise CheckpointError(f"vision_config.kind {vision['kind']!r} is none of {_OTHERS}")
    return vision["kind"]
