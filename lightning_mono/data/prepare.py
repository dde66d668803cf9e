"""Any source to a folder of litdata chunks: read, check and write every sample once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from lightning_mono.data.parts import Limits, write_parts
from lightning_mono.data.sources import SourceSpec
from lightning_mono.errors import DataError

FORMAT = 3  # of the records and chunks; a change makes every data set be prepared anew
LISTED = 1000  # skipped samples that the manifest names; skipped.jsonl names all


def prepare(source: SourceSpec, cache: Path, *, workers: int = 1) -> Path:
    """A source's split as litdata chunks in a cache, written unless that was done before.

    Args:
        source: what to read.
        cache: the folder that holds prepared data sets, one folder each.
        workers: as for :func:`prepare_into`.

    Returns:
        The folder, as :func:`prepare_into` writes it.

    Raises:
        DataError, AssetError: as :func:`prepare_into`.
    """
    folder = place(source, cache)
    return folder if folder.is_dir() else prepare_into(source, folder, workers=workers)


def place(source: SourceSpec, cache: Path) -> Path:
    """The folder in a cache that is or would be a source's; it is there once it is complete."""
    digest = _digest(source, Limits())
    return cache.absolute() / f"{source.name}-{source.split}-{digest}"


def prepare_into(
    source: SourceSpec,
    folder: Path,
    *,
    workers: int = 1,
    limits: Limits | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> Path:
    """Writes a source's split as litdata chunks, unless that was done before.

    The folder appears by one rename when all is written, so it is complete or absent; of several
    processes one writes and the others wait. Every image is decoded once; what cannot be used is
    left out, counted in ``manifest.json`` and named in ``skipped.jsonl``. What was written when
    the process was killed is not written again.

    Args:
        source: what to read.
        folder: where to; its content does not depend on ``workers``.
        workers: processes that read and write.
        limits: of parts and samples.
        progress: is told how many records have been dealt with since the last time.

    Returns:
        The folder of chunks, ``index.json``, ``manifest.json`` and ``skipped.jsonl``.

    Raises:
        DataError: nothing usable in the source, it cannot be written, or something else is there.
        AssetError: the package that the data ship in cannot be had.
    """
    folder, limits = folder.absolute(), limits or Limits()
    digest = _digest(source, limits)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not folder.exists():
                _build(source, folder, digest, workers, limits, progress)
            elif _digest_of(folder) != digest:
                raise DataError(
                    f"{folder} exists and is not {source} as it is now; delete it or name another"
                )
            else:
                shutil.rmtree(_work(folder), ignore_errors=True)  # killed behind its last step
    except OSError as error:
        raise DataError(
            f"cannot prepare {source} in {folder.parent}: {error.strerror or error}; it must be "
            "writable and have room; run it again, it goes on where it stopped"
        ) from error
    return folder


def _work(folder: Path) -> Path:
    """Where what will be a folder is put together."""
    return folder.with_name(f".{folder.name}.partial")


def _digest(source: SourceSpec, limits: Limits) -> str:
    """Changes with whatever changes what is written."""
    parts = [FORMAT, source.name, source.split, dict(source.options), source.stamp(), vars(limits)]
    key = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def _digest_of(folder: Path) -> str | None:
    try:
        digest: str = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["digest"]
    except (OSError, ValueError, KeyError):
        return None
    return digest


def _build(
    source: SourceSpec,
    folder: Path,
    digest: str,
    workers: int,
    limits: Limits,
    progress: Callable[[int], object],
) -> None:
    work = _work(folder)
    if not (work / digest).is_file():
        shutil.rmtree(work, ignore_errors=True)  # of another source, or of this one as it was
        work.mkdir()
        (work / digest).touch()
    notes = write_parts(source.pending(), work, limits, workers, progress)
    skipped = [skip for note in notes for skip in note["skipped"]]
    if not any(note["samples"] for note in notes):
        shutil.rmtree(work)
        first = next(iter(skipped), {"id": "it", "reason": "is empty"})
        raise DataError(f"no usable sample in {source}: {first['id']} {first['reason']}")
    content = work / "content"
    indices = [note["index"] for note in notes if note["index"]]
    chunks = [chunk for index in indices for chunk in index["chunks"]]
    _write(content / "index.json", {"chunks": chunks, "config": indices[0]["config"]})
    _write(content / "manifest.json", _manifest(source, digest, notes, skipped, chunks))
    lines = (json.dumps(skip, ensure_ascii=False) + "\n" for skip in skipped)
    (content / "skipped.jsonl").write_text("".join(lines), encoding="utf-8")
    os.replace(content, folder)
    shutil.rmtree(work)


def _manifest(
    source: SourceSpec,
    digest: str,
    notes: list[dict[str, Any]],
    skipped: list[dict[str, str]],
    chunks: list[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "source": source.name,
        "split": source.split,
        "options": dict(source.options),
        "digest": digest,
        **{key: sum(note[key] for note in notes) for key in ("samples", "images", "exchanges")},
        "bytes": sum(chunk["chunk_bytes"] for chunk in chunks),
        "skipped_count": len(skipped),
        "skipped_by_fault": dict(Counter(skip["fault"] for skip in skipped).most_common()),
        "skipped": skipped[:LISTED],
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False, default=str)
    path.write_text(text, encoding="utf-8")
