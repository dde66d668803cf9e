"""Where samples come from: one file a source, and the table of their names."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_mono.data.sample import Sample, Skipped
from lightning_mono.data.sources import art4apps, easy_vqa, jsonl, text, tuxpaint
from lightning_mono.errors import DataError


def _unchanging(**options: Any) -> str:
    return ""


@dataclass(frozen=True)
class Source:
    """How samples are read, and what else than the options their content depends on.

    Attributes:
        read: ``read(split, **options)`` yields samples in an order that never changes.
        stamp: ``stamp(**options)`` changes whenever the content does: times and sizes of the
            user's files, or the version of Python.
    """

    read: Callable[..., Iterator[Sample | Skipped]]
    stamp: Callable[..., str] = _unchanging


SOURCES: Mapping[str, Source] = {
    "easy_vqa": Source(easy_vqa.questions),
    "easy_vqa_blind": Source(easy_vqa.blind),
    "easy_vqa_captions": Source(easy_vqa.captions),
    "easy_vqa_reading": Source(easy_vqa.reading),
    "art4apps": Source(art4apps.pictures),
    "tuxpaint": Source(tuxpaint.stamps),
    "stdlib_docs": Source(text.stdlib_docs, text.python_stamp),
    "text_files": Source(text.text_files, text.files_stamp),
    "jsonl": Source(jsonl.records, jsonl.file_stamp),
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
        return SOURCES[self.name].read(self.split, **self.options)

    def stamp(self) -> str:
        """What changes when the content does though name, split and options stay."""
        return SOURCES[self.name].stamp(**self.options)

    def __str__(self) -> str:
        path = self.options.get("path")
        return f"{self.name}/{self.split}" + (f" ({Path(path)})" if path else "")


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there {'are ' + ', '.join(known) if known else 'is none'}"
