"""Where samples come from: one file a source, and the table of their names."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_mono.data.sample import Pending, Sample, Skipped
from lightning_mono.data.sources import (
    art4apps,
    conversations,
    easy_vqa,
    emoji,
    files,
    gcompris,
    gimp_help,
    pdf_pages,
    plots,
    table,
    text,
    tux_scenes,
    tuxpaint,
    webdataset,
)
from lightning_mono.errors import DataError


def _unchanging(**options: Any) -> str:
    return ""


@dataclass(frozen=True)
class Source:
    """How samples are read, and what else than the options their content depends on.

    Attributes:
        read: ``read(split, **options)`` yields samples in an order that never changes; those that
            take time to read may be left pending, for another process to read.
        stamp: ``stamp(**options)`` changes whenever the content does: times and sizes of the
            user's files, or the version of Python.
    """

    read: Callable[..., Iterator[Sample | Skipped | Pending]]
    stamp: Callable[..., str] = _unchanging


SOURCES: Mapping[str, Source] = {
    "easy_vqa": Source(easy_vqa.questions),
    "easy_vqa_blind": Source(easy_vqa.blind),
    "easy_vqa_captions": Source(easy_vqa.captions),
    "easy_vqa_reading": Source(easy_vqa.reading),
    "art4apps": Source(art4apps.pictures),
    "tuxpaint": Source(tuxpaint.stamps),
    "tux_scenes": Source(tux_scenes.composed),
    "tux_scenes_blind": Source(tux_scenes.blind),
    "emoji": Source(emoji.pictures),
    "gcompris_words": Source(gcompris.words),
    "gcompris_paragraphs": Source(gcompris.paragraphs),
    "gcompris_photos": Source(gcompris.photos),
    "gimp_help": Source(gimp_help.figures),
    "plots": Source(plots.plots),
    "pdf_pages": Source(pdf_pages.pages),
    "stdlib_docs": Source(text.stdlib_docs, text.python_stamp),
    "text_files": Source(text.text_files, text.files_stamp),
    "jsonl": Source(conversations.records, conversations.file_stamp),
    "llava": Source(conversations.records, conversations.file_stamp),
    "webdataset": Source(webdataset.samples, webdataset.files_stamp),
    "table": Source(table.rows, table.files_stamp),
}


@dataclass(frozen=True)
class SourceSpec:
    """One split of one source with its options, as a recipe names it.

    Raises:
        DataError: no such source, split or option, or a needed option is missing.
    """

    name: str
    split: str = "train"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in SOURCES:
            raise DataError(f"no data source {self.name!r}{_nearest(self.name, list(SOURCES))}")
        if self.split not in ("train", "test"):
            raise DataError(f"source {self.name}: split is train or test, not {self.split!r}")
        parameters = inspect.signature(SOURCES[self.name].read).parameters
        known = [name for name in parameters if name != "split"]
        for option in self.options:
            if option not in known:
                hint = _nearest(option, known)
                raise DataError(f"source {self.name} has no option {option!r}{hint}")
        for name in known:
            if parameters[name].default is inspect.Parameter.empty and name not in self.options:
                raise DataError(f"source {self.name} needs the option {name!r}")

    def read(self) -> Iterator[Sample | Skipped]:
        """Reads the source from its start."""
        for sample in self.pending():
            ready = sample.read() if isinstance(sample, Pending) else sample
            if ready is not None:
                yield ready

    def pending(self) -> Iterator[Sample | Skipped | Pending]:
        """The same, but what can be read by another process is left to be read."""
        return SOURCES[self.name].read(self.split, **self.options)

    def stamp(self) -> str:
        """What changes when the content does though name, split and options stay."""
        return SOURCES[self.name].stamp(**self.options)

    def __str__(self) -> str:
        path = self.options.get("path")
        return f"{self.name}/{self.split}" + (f" ({Path(path)})" if path else "")


def format_of(path: str) -> str:
    """The source that reads what lies at a path, by the names of the files.

    Raises:
        DataError: nothing that a source reads, or several kinds of it.
    """
    readers = {"webdataset": webdataset, "table": table, "llava": conversations}
    every = [suffix for reader in readers.values() for suffix in reader.SUFFIXES]
    suffixes = {file.suffix.lower() for file in files.find(path, every)}
    found = [name for name, reader in readers.items() if suffixes & set(reader.SUFFIXES)]
    if "webdataset" in found or len(found) == 1:  # tools that write tars leave tables beside them
        return found[0]
    kinds = " and ".join(found) or f"none of {', '.join(every)}"
    raise DataError(f"{path} holds {kinds}; say which with --format")


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there {'are ' + ', '.join(known) if known else 'is none'}"
