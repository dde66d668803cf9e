"""Checkpoints of a run: complete training state, by step and by stage."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.plugins.io import TorchCheckpointIO
from typing_extensions import override

from lightning_mono.checkpoints.atomic import replacing
from lightning_mono.errors import CheckpointError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written aside and then put in place."""

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        with replacing(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


def step_file(folder: Path, step: int) -> Path:
    return folder / f"step={step:08d}.ckpt"


def stage_file(folder: Path, stage: str, step: int) -> Path:
    return folder / f"stage={stage}-step={step:08d}.ckpt"


def step_of(path: Path) -> int:
    """The optimizer step in a checkpoint's file name; -1 where there is none."""
    match = re.search(r"step=(\d+)\.ckpt$", path.name)
    return int(match[1]) if match else -1


def latest(folder: Path) -> Path | None:
    """The checkpoint that is furthest on, or None."""
    found = [path for path in folder.glob("*.ckpt") if step_of(path) >= 0]
    return max(found, key=step_of, default=None)


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's contents, weights memory-mapped; plain data and tensors only.

    Raises:
        CheckpointError: the file is missing or broken.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises what its pickle and zip readers raise
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path} cannot be read ({reason}); delete it to resume from the one before it"
        ) from error
