"""Where a model's folder is: a folder, a run, or the hub."""

from __future__ import annotations

from pathlib import Path

from lightning_mono.backbones.hub import from_hub, is_hub_id
from lightning_mono.errors import CheckpointError


def model_folder(spec: str | Path) -> Path:
    """The folder that holds config.json.

    Args:
        spec: a model folder, a run folder with a model in it, or a hub id.

    Raises:
        CheckpointError: there is no such folder.
        AssetError: the hub did not give it.
    """
    path = Path(spec).expanduser()
    inside = path / "model"
    if not (path / "config.json").is_file() and (inside / "config.json").is_file():
        return inside
    if path.is_dir():
        return path
    if isinstance(spec, str) and is_hub_id(spec):
        return from_hub(spec)
    if path.exists():
        raise CheckpointError(f"{path} is a file, not a model folder")
    raise CheckpointError(f"{path} is no model folder: give one, a run folder or a hub id")
