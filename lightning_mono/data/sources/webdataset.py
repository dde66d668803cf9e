"""Tar files as the webdataset library has them: the members of a sample share their basename.

``000/17.jpg`` with ``000/17.txt``, ``000/17.caption`` or ``000/17.json`` is one sample. JSON holds
what a record holds (:mod:`lightning_mono.data.sources.record`), but for the images; a text beside
it is the caption. Several images of one sample are ``17.0.jpg``, ``17.1.jpg``. Nothing is unpacked.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from lightning_mono.data.sample import Fault, Pending, SampleError, Skipped
from lightning_mono.data.sources import files
from lightning_mono.data.sources.record import Side, read
from lightning_mono.errors import DataError

SUFFIXES = (".tar",)
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")
CAPTIONS = (".txt", ".caption", ".text")
_HEADERS = 1024  # bytes, roughly, of what is known of a sample before it is read


def samples(split: str, path: str, held_out_share: float = 0.0) -> Iterator[Pending | Skipped]:
    """The samples of tar files, in the order of their members.

    Args:
        split: ``train`` or ``test``; without ``held_out_share`` either is all of them.
        path: a tar file, a folder of them, a pattern, or one with braces (``{0000..0099}.tar``).
        held_out_share: share of the samples that belong to ``test`` and not to ``train``, 0 to 1.

    Raises:
        DataError: a file cannot be read.
    """
    side = Side(split, held_out_share)
    found = files.find(path, SUFFIXES)
    for archive, label in zip(found, files.labels(found), strict=True):
        try:
            for key, members in groupby(_members(archive), lambda member: member.key):
                group = tuple(members)
                name = f"{label.removesuffix('.tar')}/{key}"
                load = partial(_image, archive, {member.name: member for member in group})
                reading = partial(read, partial(_record, archive, name, group), name, load, side)
                yield Pending(reading, _HEADERS)
        except _DamagedError as error:
            yield Skipped(label, str(error))
        except OSError as error:
            raise DataError(f"cannot read {archive}: {error.strerror}") from error


def files_stamp(path: str, held_out_share: float = 0.0) -> str:
    """Sizes and times of the tar files."""
    return files.stamp(files.find(path, SUFFIXES))


class _DamagedError(Exception):
    """An archive ends before its end."""


@dataclass(frozen=True)
class _Member:
    """Where a member's bytes lie; ``kind`` is its suffix, ``fault`` why it must not be read."""

    key: str
    name: str
    kind: str
    offset: int
    size: int
    fault: Fault | None
    reason: str = ""


def _members(archive: Path) -> Iterator[_Member]:
    """The members of an archive by their headers alone."""
    with archive.open("rb") as opened:
        if opened.read(2) == b"\x1f\x8b":
            raise _DamagedError("is compressed; gunzip it first, its images are compressed already")
        opened.seek(0)
        try:
            with tarfile.open(fileobj=opened, mode="r:") as tar:
                while (info := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # millions of them
                    if not info.isdir():
                        yield _member(info)
                end = tar.offset
        except tarfile.TarError as error:
            raise _DamagedError(f"is damaged: {error}; what stands behind it is lost") from error
        opened.seek(end)
        if opened.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise _DamagedError(f"is damaged at byte {end:,}; what stands behind it is lost")


def _member(info: tarfile.TarInfo) -> _Member:
    folder, _, base = info.name.rpartition("/")
    stem, _, kind = base.partition(".")
    key = f"{folder}/{stem}" if folder else stem
    fault: Fault | None = None
    reason = ""
    if info.name.startswith("/") or ".." in PurePosixPath(info.name).parts:
        fault, reason = "unsafe path", f"member {info.name} leaves its archive"
    elif not info.isreg():
        fault, reason = "unsafe path", f"member {info.name} is a link or a device, not a file"
    elif info.issparse():
        fault, reason = "malformed record", f"member {info.name} is sparse"
    return _Member(key, info.name, f".{kind.lower()}", info.offset_data, info.size, fault, reason)


def _record(archive: Path, name: str, members: tuple[_Member, ...]) -> dict[str, Any]:
    """What the members of one sample say, as a record."""
    for member in members:
        if member.fault is not None:
            raise SampleError(member.fault, member.reason)
    record: dict[str, Any] = {}
    for member in members:
        if member.kind == ".json":
            record = _json(_text(archive, member), member.name)
    record = {key: record[key] for key in record if key not in ("image", "images", "text")}
    record |= {"id": name, "images": [m.name for m in sorted(members, key=_order) if _is_image(m)]}
    captions = [member for member in members if member.kind in CAPTIONS]
    if captions and "conversations" not in record:
        record["caption"] = _text(archive, captions[0])
    if not record["images"]:
        raise SampleError("missing file", f"no image among {', '.join(m.name for m in members)}")
    return record


def _json(text: str, name: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise SampleError("malformed record", f"{name} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise SampleError("malformed record", f"{name} is not a JSON object")
    return record


def _is_image(member: _Member) -> bool:
    return member.kind.endswith(IMAGES)


def _order(member: _Member) -> tuple[int, str]:
    """``17.2.jpg`` stands before ``17.10.jpg``."""
    number = re.match(r"\.(\d+)\.", member.kind)
    return (int(number[1]) if number else 0, member.kind)


def _text(archive: Path, member: _Member) -> str:
    try:
        return _bytes(archive, member).decode()
    except UnicodeDecodeError as error:
        raise SampleError("bad text", f"{member.name} is not UTF-8: {error.reason}") from error


def _image(archive: Path, members: dict[str, _Member], name: str) -> bytes:
    return _bytes(archive, members[name])


def _bytes(archive: Path, member: _Member) -> bytes:
    files.check_size(member.size, f"member {member.name}")
    try:
        with archive.open("rb") as opened:
            opened.seek(member.offset)
            content = opened.read(member.size)
    except OSError as error:
        raise SampleError("missing file", f"cannot read {archive}: {error.strerror}") from error
    if len(content) < member.size:
        raise SampleError("unreadable image", f"member {member.name} is cut off")
    return content
