"""How many tokens each prepared sample takes: measured once, kept beside the chunks."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock

from lightning_mono.data.render import Renderer
from lightning_mono.data.store import Store

MANY = 20_000  # samples from which on processes are worth starting


@dataclass(frozen=True)
class Lengths:
    """The lengths of a store's samples under one renderer.

    Attributes:
        tokens: (samples,) int32; 0 where nothing supervised fits, so the sample is left out.
        dropped: (samples,) int32; exchanges that do not fit.
    """

    tokens: np.ndarray
    dropped: np.ndarray


def measure(store: Store, renderer: Renderer, max_length: int, workers: int = 0) -> Lengths:
    """Lengths of all samples, from the cache in the store's folder where they are there.

    Of several processes that want the same lengths one measures and the others wait.

    Args:
        store: the samples.
        renderer: what turns them into tokens; pixels are not decoded.
        max_length: most tokens of a sample.
        workers: processes that measure where there are ``MANY`` samples; 0 measures here.
    """
    path = store.folder / f"lengths-{renderer.fingerprint}-{max_length}.npy"
    table = _load(path)
    if table is None:
        try:
            with FileLock(path.with_name(f".{path.name}.lock")):
                table = _load(path)
                if table is None:
                    table = _measured(store, renderer, max_length, workers)
                    _save(path, table)
        except OSError:  # a read-only or full disk costs time, not the run
            table = table if table is not None else _measured(store, renderer, max_length, workers)
    return Lengths(table[:, 0], table[:, 1])


def _measured(store: Store, renderer: Renderer, max_length: int, workers: int) -> np.ndarray:
    """(samples, 2) int32."""
    length = partial(_lengths, store, renderer, max_length)
    if workers < 2 or len(store) < MANY:
        return length(range(len(store)))
    ends = np.cumsum(store.chunk_sizes).tolist()
    ranges = [range(*bounds) for bounds in zip([0, *ends], ends, strict=False)]
    with ProcessPoolExecutor(workers) as pool:
        several = -(-len(ranges) // (4 * workers))
        return np.concatenate(list(pool.map(length, ranges, chunksize=several)))


def _lengths(store: Store, renderer: Renderer, max_length: int, numbers: range) -> np.ndarray:
    pairs = [renderer.length(store[number], max_length) for number in numbers]
    return np.array(pairs, np.int32).reshape(-1, 2)


def _load(path: Path) -> np.ndarray | None:
    try:
        table: np.ndarray = np.load(path)
    except (OSError, ValueError, EOFError):  # not there yet, or damaged
        return None
    return table


def _save(path: Path, table: np.ndarray) -> None:
    with (
        suppress(OSError),
        tempfile.TemporaryDirectory(dir=path.parent, prefix=".lengths-") as scratch,
    ):
        np.save(Path(scratch) / "table.npy", table)
        os.replace(Path(scratch) / "table.npy", path)
