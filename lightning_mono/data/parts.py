"""The samples of a source as litdata chunks, written part by part, by any number of processes.

A part is a run of records in the order of the source, the same whoever writes it. Its chunks come
first and its note last, so a part whose note is there is done, and is not written again by a run
that goes on after one that was killed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from litdata.streaming import Cache

from lightning_mono.data.images import decode
from lightning_mono.data.sample import Pending, Sample, SampleError, Skipped
from lightning_mono.data.store import to_record
from lightning_mono.errors import DataError

CHUNK_BYTES = 8 * 2**20
PART_RECORDS = 4096
PART_BYTES = 64 * 2**20  # of records that hold their images already

Read = Sample | Skipped | Pending


@dataclass(frozen=True)
class Limits:
    """What a part and a sample may hold.

    Attributes:
        part_records: records of a part, at most.
        characters: of text in a sample; more is no sample but a mistake.
    """

    part_records: int = PART_RECORDS
    characters: int = 1_000_000


def write_parts(
    records: Iterable[Read],
    work: Path,
    limits: Limits,
    workers: int = 1,
    progress: Callable[[int], object] = lambda _: None,
) -> list[dict[str, Any]]:
    """Reads, checks and writes the records that are not written yet.

    Args:
        records: of the source, from its start.
        work: the folder in which ``content`` gets the chunks and ``parts`` the notes.
        limits: the same as those of the parts that are there already.
        workers: processes that read and write; 1 does it here, as does a single part.
        progress: is told how many records have been dealt with since the last time.

    Returns:
        The notes of all parts, in order: counts, what was skipped, and litdata's index.

    Raises:
        DataError: a process died.
        OSError: the disk is full, or the folder cannot be written.
    """
    for scratch in work.glob("scratch-*"):
        shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
    (work / "content").mkdir(parents=True, exist_ok=True)
    (work / "parts").mkdir(exist_ok=True)
    count = 0

    def to_do() -> Iterator[tuple[int, list[Read]]]:
        nonlocal count
        for number, part in enumerate(_parts(records, limits)):
            count = number + 1
            if _done(work, number):
                progress(len(part))
            else:
                yield number, part

    _each(to_do(), work, limits, workers, progress)
    return [json.loads(_note(work, number).read_text()) for number in range(count)]


def _parts(records: Iterable[Read], limits: Limits) -> Iterator[list[Read]]:
    part: list[Read] = []
    held = 0
    for record in records:
        part.append(record)
        held += record.nbytes if isinstance(record, Pending) else _nbytes(record)
        if len(part) >= limits.part_records or held >= PART_BYTES:
            yield part
            part, held = [], 0
    if part:
        yield part


def _nbytes(sample: Sample | Skipped) -> int:
    return sum(map(len, sample.images)) if isinstance(sample, Sample) else 0


def _each(
    parts: Iterator[tuple[int, list[Read]]],
    work: Path,
    limits: Limits,
    workers: int,
    progress: Callable[[int], object],
) -> None:
    """Writes parts, at most two a process waiting for their turn."""
    first = list(islice(parts, 2))
    if workers <= 1 or len(first) < 2:
        for number, part in (*first, *parts):
            _write(number, part, work, limits)
            progress(len(part))
        return
    running: dict[Future[None], int] = {}

    def collect() -> None:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            future.result()
            progress(running.pop(future))

    with ProcessPoolExecutor(workers, initializer=_follow, initargs=(os.getpid(),)) as pool:
        try:
            for number, part in (*first, *parts):
                running[pool.submit(_write, number, part, work, limits)] = len(part)
                if len(running) >= 2 * workers:
                    collect()
            while running:
                collect()
        except BrokenProcessPool as error:
            raise DataError(
                f"a process died while it wrote to {work}, out of memory perhaps; "
                "run it again with fewer workers, it goes on where it stopped"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _follow(parent: int) -> None:
    """Makes a process end with its parent, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _note(work: Path, number: int) -> Path:
    return work / "parts" / f"{number:06d}.json"


def _done(work: Path, number: int) -> bool:
    """Whether a part was written, and its chunks are there as a whole."""
    try:
        chunks = json.loads(_note(work, number).read_text())["index"].get("chunks", [])
        sizes = [(work / "content" / chunk["filename"]).stat().st_size for chunk in chunks]
    except (OSError, ValueError, KeyError):
        return False
    return sizes == [chunk["chunk_bytes"] for chunk in chunks]


def _write(number: int, part: list[Read], work: Path, limits: Limits) -> None:
    """Writes the chunks of a part, then its note.

    litdata's ``optimize`` would write the same chunks, but it seeds every random generator, takes
    over Ctrl-C and empties ``/tmp/data``, all in the calling process.
    """
    note: dict[str, Any] = {"samples": 0, "images": 0, "exchanges": 0, "skipped": [], "index": {}}
    with tempfile.TemporaryDirectory(dir=work, prefix="scratch-") as scratch:
        with _alone():
            chunks = Cache(scratch, chunk_bytes=CHUNK_BYTES)
        for read in part:
            sample = _checked(read, limits)
            if isinstance(sample, Skipped):
                name = sample.id.encode(errors="backslashreplace").decode()
                reason = sample.reason.encode(errors="backslashreplace").decode()
                note["skipped"].append({"id": name, "fault": sample.fault, "reason": reason})
            elif sample is not None:
                chunks[note["samples"]] = to_record(sample)
                note["samples"] += 1
                note["images"] += len(sample.images)
                note["exchanges"] += len(sample.exchanges)
        if note["samples"]:
            chunks.done()
            chunks.merge()
            note["index"] = index = json.loads((Path(scratch) / "index.json").read_text())
            for place, chunk in enumerate(index["chunks"]):
                name = f"part-{number:06d}-{place:03d}.bin"
                os.replace(Path(scratch) / chunk["filename"], work / "content" / name)
                chunk["filename"] = name
        written = Path(scratch) / "note.json"
        written.write_text(json.dumps(note))
        os.replace(written, _note(work, number))


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


def _checked(read: Read, limits: Limits) -> Sample | Skipped | None:
    """The sample with the sizes of its images, if it has all that training needs."""
    sample, where = (read.read(), read.where) if isinstance(read, Pending) else (read, "")
    if not isinstance(sample, Sample):
        return sample
    try:
        _check_text(sample, limits)
        sizes = tuple(
            decode(image, f"image {number} of {len(sample.images)}").size
            for number, image in enumerate(sample.images, 1)
        )
    except SampleError as error:
        reason = str(error).removeprefix("image 1 of 1: ")
        named = where in ("", sample.id)
        return Skipped(sample.id, reason if named else f"{where}: {reason}", error.fault)
    return replace(sample, sizes=sizes)


def _check_text(sample: Sample, limits: Limits) -> None:
    if not sample.exchanges and (sample.images or not sample.text.strip()):
        raise SampleError("nothing to learn", "nothing to learn: no exchange and no text")
    if any(not exchange.answer.strip() for exchange in sample.exchanges):
        raise SampleError("nothing to learn", "an answer is empty")
    texts = [sample.id, sample.text]
    texts += [t for e in sample.exchanges for t in (e.question, e.answer, e.kind)]
    length = sum(map(len, texts))
    if length > limits.characters:
        raise SampleError("too long", f"{length:,} characters, more than {limits.characters:,}")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise SampleError("bad text", f"its text is not UTF-8: {error.reason}") from error
