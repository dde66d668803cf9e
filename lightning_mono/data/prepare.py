"""Any source to a folder of litdata chunks: read, check and write every sample once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from litdata.streaming import Cache

from lightning_mono.data.images import decode
from lightning_mono.data.sample import Sample, Skipped
from lightning_mono.data.sources import SourceSpec
from lightning_mono.data.store import to_record
from lightning_mono.errors import DataError

FORMAT = 2  # of the records; a change makes every data set be prepared anew
CHUNK_BYTES = 8 * 2**20
LISTED = 1000  # skipped samples that the manifest names; it counts all


def prepare(source: SourceSpec, cache: Path) -> Path:
    """Writes a source's split as litdata chunks, unless that was done before.

    The folder appears by one rename when all is written, so it is complete or absent; of several
    processes one writes and the others wait. Every image is decoded once; what cannot be used is
    left out and listed in ``manifest.json``.

    Args:
        source: what to read.
        cache: the folder that holds prepared data sets, one folder each.

    Returns:
        The folder of chunks, ``index.json`` and ``manifest.json``.

    Raises:
        DataError: nothing usable in the source, or it cannot be written.
        AssetError: the package that the data ship in cannot be had.
    """
    parts = [FORMAT, source.name, source.split, dict(source.options), source.stamp()]
    key = json.dumps(parts, sort_keys=True, default=str)
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    folder = cache.absolute() / f"{source.name}-{source.split}-{digest}"
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not folder.is_dir():
                _build(source, folder)
    except OSError as error:
        raise DataError(
            f"cannot prepare {source} in {cache}: {error.strerror or error}; "
            "it must be writable and have room"
        ) from error
    return folder


def _build(source: SourceSpec, folder: Path) -> None:
    prefix = f".{folder.name}.tmp-"
    for stale in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(stale, ignore_errors=True)  # of a process that was killed
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=prefix) as scratch:
        content = Path(scratch) / "content"
        manifest = _write(source, content)
        if manifest["samples"] == 0:
            first = next(iter(manifest["skipped"]), {"id": "it", "reason": "is empty"})
            raise DataError(f"no usable sample in {source}: {first['id']} {first['reason']}")
        text = json.dumps(manifest, indent=1, ensure_ascii=False, default=str)
        (content / "manifest.json").write_text(text, encoding="utf-8")
        os.replace(content, folder)


def _write(source: SourceSpec, content: Path) -> dict[str, Any]:
    """Writes the chunks and returns the manifest.

    litdata's ``optimize`` would write the same chunks, but it seeds every random generator, takes
    over Ctrl-C and empties ``/tmp/data``, all in the calling process, and starts a second one.
    """
    manifest: dict[str, Any] = {
        "source": source.name,
        "split": source.split,
        "options": dict(source.options),
        "samples": 0,
        "images": 0,
        "exchanges": 0,
        "skipped_count": 0,
        "skipped": [],
    }
    with _alone():
        chunks = Cache(str(content), chunk_bytes=CHUNK_BYTES)
    for read in source.read():
        sample = _checked(read)
        if isinstance(sample, Skipped):
            manifest["skipped_count"] += 1
            if len(manifest["skipped"]) < LISTED:
                manifest["skipped"].append({"id": sample.id, "reason": sample.reason})
            continue
        chunks[manifest["samples"]] = to_record(sample)
        manifest["samples"] += 1
        manifest["images"] += len(sample.images)
        manifest["exchanges"] += len(sample.exchanges)
    if manifest["samples"]:
        chunks.done()
        chunks.merge()
    return manifest


@contextmanager
def _alone() -> Iterator[None]:
    """Hides from litdata the ranks of a distributed run: it would wait for their chunks."""
    hidden = {"WORLD_SIZE": "1", "GLOBAL_RANK": "0", "NNODES": "1"}
    before = {name: os.environ.get(name) for name in hidden}
    os.environ.update(hidden)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _checked(sample: Sample | Skipped) -> Sample | Skipped:
    """The sample with the sizes of its images, if it has all that training needs."""
    if isinstance(sample, Skipped):
        return sample
    if not sample.exchanges and (sample.images or not sample.text.strip()):
        return Skipped(sample.id, "nothing to learn: no exchange and no text")
    if any(not exchange.answer.strip() for exchange in sample.exchanges):
        return Skipped(sample.id, "an answer is empty")
    try:
        sizes = tuple(decode(image, sample.id).size for image in sample.images)
    except DataError as error:
        return Skipped(sample.id, str(error).removeprefix(f"{sample.id}: "))
    return replace(sample, sizes=sizes)
