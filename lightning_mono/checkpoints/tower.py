"""A vision tower by itself: InternViT's own folder, or the one in an InternVL's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lightning_mono.backbones.located import located
from lightning_mono.backbones.shards import read_json
from lightning_mono.checkpoints import transformers_internvl
from lightning_mono.checkpoints.transformers_internvl import PublishedNames
from lightning_mono.checkpoints.vision import TOWER as PREFIX
from lightning_mono.checkpoints.vision import patchifier_entries
from lightning_mono.checkpoints.vision_config import TOWER, read_vit
from lightning_mono.errors import CheckpointError
from lightning_mono.model.patchifier import VitPatchifier
from lightning_mono.model.pixels import resized


def load_tower(patchifier: VitPatchifier, folder: Path) -> None:
    """Gives a patchifier's transformer the weights of a folder; its MLP stays as it is.

    The position table is resized bicubically where tiles are of another size.

    Raises:
        CheckpointError: a file is missing or broken, or the transformer is of another shape.
    """
    path = folder / "config.json"
    with located(path):
        side = _checked(patchifier, read_json(path))
    weights = PublishedNames(folder)
    state = patchifier.state_dict(prefix="patchifier.")
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    shapes["patchifier.vit.positions"] = (side, side, patchifier.config.width)
    inside = any(name.startswith(PREFIX) for name in weights.files)
    stored = {
        entry.name if inside else entry.name.removeprefix(PREFIX): entry
        for entry in patchifier_entries("vit", shapes)
        if entry.name.startswith(PREFIX)
    }
    others = {name for name in weights.files if inside and not name.startswith(PREFIX)}
    weights.check_names(set(stored), others)
    for name, entry in stored.items():
        for ours, part in entry.split(weights.read(name, entry.shape)).items():
            own = state[ours]
            if ours == "patchifier.vit.positions":
                part = resized(part, *own.shape[:2])
            with torch.no_grad():
                own.copy_(part)


def _checked(patchifier: VitPatchifier, entries: dict[str, Any]) -> int:
    """Compares shapes; gives the side of the stored position table, in patches."""
    if entries.get("model_type") == transformers_internvl.MODEL_TYPE:
        entries = transformers_internvl.published_entries(entries)
    vision = entries.get("vision_config", entries)
    if vision.get("model_type") != TOWER:
        raise CheckpointError(f"model_type {vision.get('model_type')!r} is no {TOWER!r}")
    ours, theirs = patchifier.config, read_vit(vision)
    assert ours.vit is not None
    # What factors start from does not matter to those that have learnt, nor a ratio's last digit.
    theirs = replace(theirs, layer_scale=ours.vit.layer_scale)
    if theirs.mlp_size(ours.width) == ours.vit.mlp_size(ours.width):
        theirs = replace(theirs, mlp_ratio=ours.vit.mlp_ratio)
    wanted = (ours.patch_size, ours.width, ours.vit)
    found = (vision["patch_size"], vision["hidden_size"], theirs)
    if wanted != found:
        raise CheckpointError(
            f"the tower has patches of {found[0]}, width {found[1]} and {theirs}; "
            f"model.patchifier says {wanted[0]}, {wanted[1]} and {ours.vit}"
        )
    side: int = vision["image_size"] // vision["patch_size"]
    return side
