"""From one model folder to another: dtype, shards, image size, and text LLMs into our layout."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from lightning_mono.backbones import PACKAGED, load_backbone, save_backbone
from lightning_mono.backbones.shards import SHARD_BYTES
from lightning_mono.checkpoints.atomic import explained
from lightning_mono.checkpoints.folder import load_model, save_model
from lightning_mono.checkpoints.locate import model_folder
from lightning_mono.errors import CheckpointError

# Handed on as they are. Python files belong to other people's loaders; they are never run here.
_BESIDE = ("*.json", "*.jinja", "*.model", "*.txt", "*.py", "*.md", "LICENSE*")
_OURS = ("config.json", "model.safetensors.index.json")


def convert(
    source: str | Path,
    target: str | Path,
    *,
    dtype: torch.dtype | None = None,
    image_size: int | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Any]:
    """Reads a model and writes it to a new folder in the published layout.

    Args:
        source: a model folder, a run folder, a hub id, a GGUF file or a packaged name.
        target: a folder that does not exist yet, or is empty.
        dtype: of the written weights; by default that of the files, float16 as float32.
        image_size: side of a tile in pixels; the table of positions stays, and is resized in use.
        shard_bytes: weights above this are written as several files with an index.

    Returns:
        What was written: folder, architecture, parameters, dtype, files.

    Raises:
        CheckpointError: the source is broken, or the target is in use.
        AssetError: the source cannot be had.
    """
    out = Path(target).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} is in use: name a new folder")
    if str(source) in PACKAGED or str(source).endswith(".gguf"):
        backbone = load_backbone(str(source), dtype or torch.float32)
        save_backbone(out, backbone)
        count = sum(value.numel() for value in backbone.tensors.values())
        return _written(out, backbone.config.family, count)
    folder = model_folder(source)
    model = load_model(folder, dtype=dtype, image_size=image_size)
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
        for path in sorted({path for pattern in _BESIDE for path in folder.glob(pattern)}):
            if path.name not in _OURS:
                shutil.copyfile(path, out / path.name)
    save_model(model, out, shard_bytes=shard_bytes)
    count = sum(p.numel() for p in model.parameters())
    return _written(out, model.config.decoder.family, count)


def _written(folder: Path, family: str, parameters: int) -> dict[str, Any]:
    files = sorted(folder.iterdir())
    return {
        "folder": str(folder),
        "family": family,
        "parameters": parameters,
        "bytes": sum(path.stat().st_size for path in files),
        "files": [path.name for path in files],
    }
