"""A thousand records in each format, one in a hundred broken, in every way that there is."""

from __future__ import annotations

import csv
import io
import json
import os
import struct
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RECORDS = 1000
TOO_LONG = 2000  # characters


def photo(seed: int) -> bytes:
    """A small JPEG, each another."""
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((32, 24)).save(file, "JPEG")
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of a few bytes that claims 10 gigapixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@dataclass(frozen=True)
class Made:
    """A source on disk.

    Attributes:
        options: of the source.
        faults: what is wrong with which records: id -> fault.
        ids: of the records that are as they should be, in order.
        place: what a record's place in its file is called; empty where its id says it.
    """

    name: str
    options: dict[str, Any]
    faults: dict[str, str]
    ids: list[str]
    place: str = ""


Break = Callable[[dict[str, Any], Path], None]
Content = bytes | str | int
"""Of a tar's member: bytes; the target of a link; or how many bytes a hole has."""


def _write(name: str, content: bytes) -> Break:
    def change(record: dict[str, Any], images: Path) -> None:
        (images / name).write_bytes(content)
        record["image"] = name

    return change


def _set(**values: Any) -> Break:
    return lambda record, _: record.update(values)


def _link(target: str) -> Break:
    def change(record: dict[str, Any], images: Path) -> None:
        os.symlink(target, images / "link.jpg")
        record["image"] = "link.jpg"

    return change


def _loop(record: dict[str, Any], images: Path) -> None:
    os.symlink("loop.jpg", images / "loop.jpg")
    record["image"] = "loop.jpg"


def _pipe(record: dict[str, Any], images: Path) -> None:
    os.mkfifo(images / "pipe.jpg")
    record["image"] = "pipe.jpg"


def _huge(record: dict[str, Any], images: Path) -> None:
    with (images / "huge.jpg").open("wb") as file:
        file.truncate(2**30)  # takes no room on disk
    record["image"] = "huge.jpg"


IMAGE_BREAKS: list[tuple[str, Break]] = [
    ("unreadable image", _write("text.jpg", b"not an image")),
    ("unreadable image", _write("cut.jpg", photo(0)[:-200])),
    ("unreadable image", _write("empty.jpg", b"")),
    ("too large", _write("bomb.png", bomb())),
    ("too large", _huge),
    ("missing file", _set(image="gone.jpg")),
    ("missing file", _pipe),
    ("unsafe path", _set(image="../../etc/passwd")),
    ("unsafe path", _set(image="/etc/passwd")),
    ("unsafe path", _set(image="C:\\secret.jpg")),
    ("unsafe path", _link("/etc/passwd")),
    ("unsafe path", _loop),
    ("unsafe path", _set(image="a\0b.jpg")),
]
"""Ways to break a record whose image lies in a folder."""


def llava(folder: Path, *, lines: bool) -> Made:
    """LLaVA's JSON with an image folder, as one list or as lines."""
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "noise"}]
    raw: dict[int, bytes] = {}
    breaks: list[tuple[str, Break]] = [
        *IMAGE_BREAKS,
        ("image count", _set(conversations=[{**talk[0], "value": "<image><image>?"}, talk[1]])),
        ("image count", lambda record, _: record.pop("image")),
        ("too long", _set(conversations=[talk[0], {**talk[1], "value": "a" * TOO_LONG}])),
        ("bad text", _set(conversations=[talk[0], {**talk[1], "value": "a \ud800 b"}])),
        ("nothing to learn", _set(conversations=[talk[0], {**talk[1], "value": " \n"}])),
        ("malformed record", _set(conversations=[talk[0]])),
        ("malformed record", _set(conversations="hello")),
        ("malformed record", _set(image=7)),
    ]
    records, made = _records(folder, breaks, {"conversations": talk})
    texts = [json.dumps(record).encode() for record in records]
    # What cannot be said by an object: it has no id then, but its place.
    place = "line" if lines else "record"
    for at, fault, text in (
        (911, "bad text", texts[911].replace(b"noise", b"no\xffise")),
        (912, "malformed record", texts[912].replace(b": ", b" ", 1)),
        (913, "malformed record", b'"only words"'),
    ):
        raw[at] = text
        made.ids.remove(str(at))
        made.faults[f"{place} {at + 1}"] = fault
    texts = [raw.get(at, text) for at, text in enumerate(texts)]
    path = folder / ("data.jsonl" if lines else "data.json")
    path.write_bytes(b"\n".join(texts) if lines else b"[" + b",\n".join(texts) + b"]")
    options = {"path": str(path), "images": str(folder / "images")}
    return Made("llava", options, made.faults, made.ids, place)


def table(folder: Path, suffix: str) -> Made:
    """A table of images with questions and answers."""
    breaks: list[tuple[str, Break]] = [
        *IMAGE_BREAKS,
        ("image count", _set(question="<image><image>What?")),
        ("too long", _set(answer="a" * TOO_LONG)),
        ("nothing to learn", _set(answer="  ")),
        ("bad text", _set(answer="caf\udce9")),  # Latin-1 where UTF-8 should be
    ]
    rest = {"question": "<image>\nWhat?", "answer": "noise, mostly"}
    records, made = _records(folder, breaks, rest)
    path = folder / f"data{suffix}"
    columns = ["id", "image", "question", "answer"]
    if suffix == ".parquet":
        _parquet(path, records, columns)
    else:
        _separated(path, records, columns, made)
    options = {"path": str(path), "images": str(folder / "images")}
    return Made("table", options, made.faults, made.ids, "row")


def _separated(path: Path, records: list[dict[str, Any]], columns: list[str], made: Made) -> None:
    """CSV or TSV, with two lines that cannot be rows: they have no id, but their place."""
    dialect = {"delimiter": "\t" if path.suffix == ".tsv" else ",", "quoting": csv.QUOTE_ALL}
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.writer(file, **dialect)
        rows.writerow(columns)
        line = 1
        for at, record in enumerate(records):
            cells = [record[column] for column in columns]
            fault = {495: "malformed record", 497: "too long"}.get(at)
            cells = cells[:2] if at == 495 else cells
            cells[-1] = "a" * 2**18 if at == 497 else cells[-1]
            rows.writerow(cells)
            line += "".join(cells).count("\n") + 1
            if fault:
                made.ids.remove(str(at))
                made.faults[f"{path.name}: line {line}"] = fault


def _parquet(path: Path, records: list[dict[str, Any]], columns: list[str]) -> None:
    import pyarrow
    from pyarrow import parquet

    def column(name: str) -> pyarrow.Array:
        raw = [record[name].encode(errors="surrogateescape") for record in records]
        binary = pyarrow.array(raw, pyarrow.binary())
        return pyarrow.Array.from_buffers(pyarrow.string(), len(raw), binary.buffers())

    parquet.write_table(pyarrow.table({name: column(name) for name in columns}), path)


def tars(folder: Path) -> Made:
    """Four tar files; the last one ends in the midst."""
    faults: dict[str, str] = {}
    ids = []
    broken = iter(_TAR_BREAKS)
    for number in range(4):
        with tarfile.open(folder / f"{number:02}.tar", "w") as tar:
            for at in range(number * 250, (number + 1) * 250):
                members: list[tuple[str, Content]] = [
                    (f"{at:04}.jpg", photo(at)),
                    (f"{at:04}.txt", b"noise"),
                ]
                name = f"{number:02}/{at:04}"
                change = next(broken, None) if at % 50 == 7 and number < 3 else None
                if change:
                    fault, members = change[0], change[1](at)
                    first = members[0][0]
                    key = first.rpartition("/")[0] + "/" if "/" in first else ""
                    name = f"{number:02}/{key}{first.rpartition('/')[2].partition('.')[0]}"
                    faults[name] = fault
                else:
                    ids.append(name)
                for member in members:
                    add_member(tar, *member)
    assert next(broken, None) is None, "a way to break a sample was not tried"
    whole = (folder / "03.tar").read_bytes()
    at = whole.index(b"0900.jpg")
    (folder / "03.tar").write_bytes(whole[: at + 1024])
    ids = ids[: ids.index("03/0900")]
    faults |= {"03.tar": "malformed record"}  # with the sample in whose midst it ends
    return Made("webdataset", {"path": str(folder / "{00..03}.tar")}, faults, ids)


def add_member(tar: tarfile.TarFile, name: str, content: Content) -> None:
    """A file of some content, or of so many bytes that are not written, or a link to a target."""
    info = tarfile.TarInfo(name)
    if isinstance(content, str):
        info.type, info.linkname = tarfile.SYMTYPE, content
        tar.addfile(info)
    elif isinstance(content, int):
        info.size = content
        tar.addfile(info)
        assert tar.fileobj is not None
        tar.fileobj.seek(content, io.SEEK_CUR)  # takes no room on disk
        tar.offset += content
    else:
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))


Members = Callable[[int], list[tuple[str, Content]]]
_TAR_BREAKS: list[tuple[str, Members]] = [
    ("unreadable image", lambda n: [(f"{n}.jpg", b"text"), (f"{n}.txt", b"a")]),
    ("too large", lambda n: [(f"{n}.png", bomb()), (f"{n}.txt", b"a")]),
    ("unreadable image", lambda n: [(f"{n}.jpg", photo(n)[:-200]), (f"{n}.txt", b"a")]),
    ("too large", lambda n: [(f"{n}.jpg", 2**30), (f"{n}.txt", b"a")]),
    ("unsafe path", lambda n: [(f"../{n}.jpg", photo(n)), (f"../{n}.txt", b"a")]),
    ("unsafe path", lambda n: [(f"/etc/{n}.jpg", photo(n)), (f"/etc/{n}.txt", b"a")]),
    ("unsafe path", lambda n: [(f"{n}.jpg", "/etc/passwd"), (f"{n}.txt", b"a")]),
    ("missing file", lambda n: [(f"{n}.txt", b"a caption alone")]),
    ("malformed record", lambda n: [(f"{n}.jpg", photo(n))]),
    ("malformed record", lambda n: [(f"{n}.jpg", photo(n)), (f"{n}.json", b"{not json")]),
    ("bad text", lambda n: [(f"{n}.jpg", photo(n)), (f"{n}.txt", b"caf\xe9")]),
    ("too long", lambda n: [(f"{n}.jpg", photo(n)), (f"{n}.txt", b"a" * TOO_LONG)]),
    ("nothing to learn", lambda n: [(f"{n}.jpg", photo(n)), (f"{n}.txt", b" ")]),
    (
        "image count",
        lambda n: [
            (f"{n}.jpg", photo(n)),
            (f"{n}.json", json.dumps({"question": "<image><image>?", "answer": "a"}).encode()),
        ],
    ),
]


def _records(
    folder: Path, breaks: list[tuple[str, Break]], rest: dict[str, Any]
) -> tuple[list[dict[str, Any]], Made]:
    """Records with their images; some hundredth of them broken, each in another way."""
    images = folder / "images"
    images.mkdir()
    faults: dict[str, str] = {}
    records = []
    step = RECORDS // len(breaks) - 3
    for at in range(RECORDS):
        record = {"id": str(at), "image": f"{at}.jpg", **rest}
        (images / f"{at}.jpg").write_bytes(photo(at))
        if at % step == 5 and at // step < len(breaks):
            fault, change = breaks[at // step]
            change(record, images)
            faults[str(at)] = fault
        records.append(record)
    ids = [str(at) for at in range(RECORDS) if str(at) not in faults]
    return records, Made("", {}, faults, ids)
