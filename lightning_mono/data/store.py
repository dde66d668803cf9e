"""Random access to prepared samples, from any process."""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections import OrderedDict
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TypedDict

from litdata import StreamingDataset

from lightning_mono.data.remote import Mirror
from lightning_mono.data.sample import Exchange, Sample
from lightning_mono.errors import DataError

CACHE_BYTES = 160 * 2**20  # encoded records that each process keeps: a window of the order and more


class Record(TypedDict):
    """One sample on disk: ``meta`` is JSON, ``images`` are the encoded files end to end."""

    meta: str
    images: bytes


def to_record(sample: Sample) -> Record:
    """A sample as litdata stores it."""
    meta = {
        "id": sample.id,
        "text": sample.text,
        "dialogue": sample.dialogue,
        "exchanges": [(e.question, e.answer, e.kind) for e in sample.exchanges],
        "sizes": sample.sizes,
        "bytes": [len(image) for image in sample.images],
    }
    return {"meta": json.dumps(meta, ensure_ascii=False), "images": b"".join(sample.images)}


def from_record(record: Record) -> Sample:
    """The sample that :func:`to_record` wrote."""
    meta = json.loads(record["meta"])
    ends = list(accumulate(meta["bytes"], initial=0))
    data = record["images"]
    return Sample(
        id=meta["id"],
        images=tuple(data[a:b] for a, b in pairwise(ends)),
        exchanges=tuple(Exchange(*exchange) for exchange in meta["exchanges"]),
        text=meta["text"],
        dialogue=meta["dialogue"],
        sizes=tuple((width, height) for width, height in meta["sizes"]),
    )


class Store:
    """The samples of a prepared folder, by number.

    A miss reads a whole chunk, since litdata reads on in an open chunk a hundred times faster than
    it changes chunks; the least recently used chunks leave when ``CACHE_BYTES`` is exceeded.
    """

    def __init__(self, folder: Path | str) -> None:
        """Opens a folder that :func:`lightning_mono.data.prepare.prepare` returned.

        Args:
            folder: the folder, or the address of a copy in an object store (``s3://...``).

        Raises:
            DataError: it is not such a folder, or cannot be reached.
        """
        self._mirror = Mirror.of(str(folder)) if "://" in str(folder) else None
        self.folder = folder = self._mirror.folder if self._mirror else Path(folder)
        try:
            chunks = json.loads((folder / "index.json").read_text())["chunks"]
            self.manifest = json.loads((folder / "manifest.json").read_text())
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{folder} is not a prepared data set; prepare it again") from error
        self.chunk_sizes: list[int] = [chunk["chunk_size"] for chunk in chunks]
        self._files: list[str] = [chunk["filename"] for chunk in chunks]
        self._starts = list(accumulate(self.chunk_sizes, initial=0))
        self._forget()

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        chunk = bisect_right(self._starts, index) - 1
        return from_record(self._chunk(chunk)[index - self._starts[chunk]])

    def __getstate__(self) -> dict[str, object]:
        kept = ("folder", "manifest", "chunk_sizes", "_starts", "_files", "_mirror")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._dataset: StreamingDataset | None = None
        self._chunks: OrderedDict[int, list[Record]] = OrderedDict()
        self._bytes = 0

    def _chunk(self, chunk: int) -> list[Record]:
        if self._process != os.getpid():  # a fork must not share open files with its parent
            self._forget()
        if chunk in self._chunks:
            self._chunks.move_to_end(chunk)
            return self._chunks[chunk]
        records = self._read(chunk)
        self._chunks[chunk] = records
        self._bytes += _size(records)
        while self._bytes > CACHE_BYTES and len(self._chunks) > 1:
            self._bytes -= _size(self._chunks.popitem(last=False)[1])
        return records

    def _read(self, chunk: int) -> list[Record]:
        if self._mirror is not None:
            self._mirror.have(self._files[chunk])
        if self._dataset is None:
            self._dataset = StreamingDataset(str(self.folder))
        try:
            records = [
                self._dataset[i] for i in range(self._starts[chunk], self._starts[chunk + 1])
            ]
            # litdata hands out views of a file that it closes with the chunk
            return [Record(meta=r["meta"], images=bytes(r["images"])) for r in records]
        except Exception as error:  # litdata raises whatever the damage leads to
            raise DataError(
                f"cannot read chunk {chunk} of {self.folder} ({error}); delete the folder"
            ) from error


def _size(records: list[Record]) -> int:
    return sum(len(record["images"]) + len(record["meta"]) for record in records)
