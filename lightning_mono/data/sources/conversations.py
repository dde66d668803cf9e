"""A user's own data as JSON: one object a line, or one list of objects as LLaVA has it.

What an object holds is in :mod:`lightning_mono.data.sources.record`; images lie in a folder.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from lightning_mono.data.sample import Pending, SampleError, Skipped
from lightning_mono.data.sources import files
from lightning_mono.data.sources.record import Side, read
from lightning_mono.errors import DataError

SUFFIXES = (".json", ".jsonl")
_BOM = b"\xef\xbb\xbf"
# Strings whole, so that brackets inside them do not count; none goes over the end of a line.
_STRUCTURE = re.compile(rb'"(?:[^"\\\n]|\\.)*+"|[{}\[\],]')


def records(
    split: str, path: str, images: str | None = None, held_out_share: float = 0.0
) -> Iterator[Pending | Skipped]:
    """The records of JSON files; one that cannot be used is skipped with the reason.

    Args:
        split: ``train`` or ``test``; without ``held_out_share`` either is the whole file.
        path: a file, a folder of them, a pattern, or one with braces.
        images: the folder that image names start from, and must stay in; the file's by default.
        held_out_share: share of the pictures that belong to ``test`` and not to ``train``, 0 to 1;
            of the ids where there are no pictures.

    Raises:
        DataError: a file cannot be read.
    """
    found = files.find(path, SUFFIXES)
    for file, label in zip(found, files.labels(found), strict=True):
        root = (Path(images).expanduser() if images else file.parent).resolve()
        load, side = partial(files.read_inside, root), Side(split, held_out_share)
        for place, raw in _raw_records(file):
            where = place if len(found) == 1 else f"{label}: {place}"
            reading = partial(read, partial(_parsed, raw), where, load, side)
            yield Pending(reading, len(raw or b""), where)


def file_stamp(path: str, images: str | None = None, held_out_share: float = 0.0) -> str:
    """Sizes and times of the files; images that change in place are not noticed."""
    return files.stamp(files.find(path, SUFFIXES))


def _raw_records(file: Path) -> Iterator[tuple[str, bytes | None]]:
    """(place, text) of each record; None for the text of one that is too large."""
    try:
        with file.open("rb") as opened:
            if opened.read(3) != _BOM:
                opened.seek(0)
            start = opened.tell()
            first = opened.read(1)
            while first.isspace():
                first = opened.read(1)
            opened.seek(start)
            yield from _elements(opened) if first == b"[" and _is_list(opened) else _lines(opened)
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error


def _is_list(opened: BinaryIO) -> bool:
    """Whether what opens with a bracket is a list of records, and not lines of lists."""
    start = opened.tell()
    head = opened.read(1 << 16).lstrip()[1:].lstrip()
    opened.seek(start)
    return head[:1] in (b"{", b"]", b"")


def _lines(opened: BinaryIO) -> Iterator[tuple[str, bytes | None]]:
    number = 0
    while line := opened.readline(files.MAX_BYTES + 1):
        number += 1
        whole = len(line) <= files.MAX_BYTES
        while not whole and line and not line.endswith(b"\n"):
            line = opened.readline(files.MAX_BYTES)
        if line.strip():
            yield f"line {number}", line if whole else None


def _elements(opened: BinaryIO) -> Iterator[tuple[str, bytes | None]]:
    """The elements of one list, cut out unread, so that a broken one costs no other."""
    start = opened.tell()
    with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as text:
        depth = number = 0
        begin = start
        for found in _STRUCTURE.finditer(text, start):
            token = found[0]
            if token in b"{[":
                depth += 1
                begin = found.end() if depth == 1 else begin
            elif token in b"}]":
                depth -= 1
            if (depth == 1 and token == b",") or depth == 0:
                element = text[begin : found.start()]
                begin = found.end()
                if element.strip() or token == b",":
                    number += 1
                    whole = len(element) <= files.MAX_BYTES
                    yield f"record {number}", element if whole else None
            if depth == 0:
                return
        yield f"record {number + 1}", text[begin:]  # the file ends in its midst


def _parsed(raw: bytes | None) -> Any:
    """The value of a record's text.

    Raises:
        SampleError: it is not JSON, or not UTF-8.
    """
    if raw is None:
        raise SampleError("too large", f"more than {files.MAX_BYTES:,} bytes")
    try:
        return json.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise SampleError("bad text", f"not UTF-8: {error.reason} at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise SampleError("malformed record", f"is not JSON: {error.msg}") from error
    except RecursionError as error:
        raise SampleError("malformed record", "is not JSON: nested too deeply") from error
