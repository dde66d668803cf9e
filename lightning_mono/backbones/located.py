"""Errors in a model's file begin with its path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_mono.errors import CheckpointError


@contextmanager
def located(path: Path) -> Iterator[None]:
    """Turns what goes wrong while a file is understood into one line that says which file."""
    try:
        yield
    except KeyError as error:
        raise CheckpointError(f"{path}: no key {error.args[0]}") from error
    except (CheckpointError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
