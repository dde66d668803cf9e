"""A model as a folder: config.json and model.safetensors. Never a pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lightning_mono.checkpoints.atomic import replacing
from lightning_mono.errors import CheckpointError
from lightning_mono.model.config import MonoConfig
from lightning_mono.model.mono import MonoModel

FORMAT = "lightning_mono/1"


def save_model(model: MonoModel, folder: Path, extra: dict[str, Any] | None = None) -> None:
    """Writes a model; each file appears whole or not at all.

    Args:
        extra: further entries of config.json, e.g. how images and chats are prepared.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    with replacing(folder / "model.safetensors") as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    entries = {"format": FORMAT, "model": model.config.to_dict(), **(extra or {})}
    with replacing(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(entries, indent=2) + "\n")


def load_model(folder: Path) -> MonoModel:
    """Reads a folder that :func:`save_model` wrote, in the dtype it was written in.

    Raises:
        CheckpointError: a file is missing, broken, or of another model.
    """
    config = _model_config(folder)
    path = folder / "model.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: the folder holds no weights")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); copy it again") from error
    with torch.device("meta"):
        model = MonoModel(config)
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    _check(path, wanted, {name: value.shape for name, value in tensors.items()})
    model.load_state_dict(tensors, assign=True)
    return model


def read_config(folder: Path) -> dict[str, Any]:
    """The entries of a model folder's config.json."""
    path = folder / "config.json"
    try:
        entries = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is no model folder: it has no config.json") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(entries, dict) or entries.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not of the format {FORMAT}")
    return entries


def _model_config(folder: Path) -> MonoConfig:
    try:
        return MonoConfig.from_dict(read_config(folder)["model"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{folder / 'config.json'} does not describe a model: {type(error).__name__}: {error}"
        ) from error


def _check(path: Path, wanted: dict[str, torch.Size], found: dict[str, torch.Size]) -> None:
    if missing := sorted(wanted.keys() - found.keys()):
        raise CheckpointError(f"{path}: {len(missing)} tensors are missing, first {missing[0]}")
    if unknown := sorted(found.keys() - wanted.keys()):
        raise CheckpointError(f"{path}: {len(unknown)} tensors do not belong, first {unknown[0]}")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(found[name])}, config.json says {tuple(shape)}"
            )
