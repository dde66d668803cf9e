"""How many tokens each prepared sample takes: measured once, kept beside the chunks."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightning_mono.data.render import Renderer
from lightning_mono.data.store import Store


@dataclass(frozen=True)
class Lengths:
    """The lengths of a store's samples under one renderer.

    Attributes:
        tokens: (samples,) int32; 0 where nothing supervised fits, so the sample is left out.
        dropped: (samples,) int32; exchanges that do not fit.
    """

    tokens: np.ndarray
    dropped: np.ndarray


def measure(store: Store, renderer: Renderer, max_length: int) -> Lengths:
    """Lengths of all samples, from the cache in the store's folder where they are there.

    Args:
        store: the samples.
        renderer: what turns them into tokens; pixels are not decoded.
        max_length: most tokens of a sample.
    """
    path = store.folder / f"lengths-{renderer.fingerprint}-{max_length}.npy"
    table = _load(path)
    if table is None:
        pairs = [renderer.length(store[index], max_length) for index in range(len(store))]
        table = np.array(pairs, np.int32)
        with suppress(OSError):  # a read-only or full disk costs time, not the run
            _save(path, table)
    return Lengths(table[:, 0], table[:, 1])


def _load(path: Path) -> np.ndarray | None:
    try:
        table: np.ndarray = np.load(path)
    except (OSError, ValueError, EOFError):  # not there yet, or damaged
        return None
    return table


def _save(path: Path, table: np.ndarray) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".lengths-") as scratch:
        np.save(Path(scratch) / "table.npy", table)
        os.replace(Path(scratch) / "table.npy", path)
