"""Files that appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from lightning_mono.errors import CheckpointError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path``; puts it in place, flushed to disk, at the end.

    A run that is killed inside leaves the old file as it was.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written; the old file stands.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns a failed write to ``path`` into one line.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(_why(path, error)) from error


def _why(path: Path, error: Exception) -> str:
    """One line on a failed write; torch reports a full disk as a RuntimeError of its zip writer."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    free = "unknown"
    with contextlib.suppress(OSError):
        free = f"{shutil.disk_usage(path.parent).free / 1e6:.0f} MB"
    first = reason.splitlines()[0] if reason else type(error).__name__
    return (
        f"cannot write {path}: {first} (free space: {free}); what was saved before is intact, "
        "make room and go on with --resume"
    )
