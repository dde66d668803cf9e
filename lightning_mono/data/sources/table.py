"""Tables of images and captions: CSV, TSV, and Parquet (with ``pip install pyarrow``).

A row names its image by a path under the images' folder; in Parquet it may also hold the image
itself, as bytes or as the Hugging Face hub stores it (``{"bytes": ..., "path": ...}``). The other
columns that a record knows (:mod:`lightning_mono.data.sources.record`), such as ``id``,
``question`` and ``answer``, or ``conversations``, are taken as they are called.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning_mono.data.sample import Pending, Skipped
from lightning_mono.data.sources import files
from lightning_mono.data.sources.record import Side, read
from lightning_mono.errors import DataError

SUFFIXES = (".csv", ".tsv", ".parquet")
IMAGE_COLUMNS = ("image", "images", "image_path", "filepath", "file_name", "filename", "path")
CAPTION_COLUMNS = ("caption", "text", "title", "description")
_KNOWN = ("id", "kind", "question", "answer", "conversations")
_BATCH = 64  # rows of a Parquet file that are in memory at a time

Cells = list[tuple[str, Any]]
"""The cells of a row with their columns; bytes that are not UTF-8 are escaped as surrogates."""


def rows(
    split: str,
    path: str,
    images: str | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    held_out_share: float = 0.0,
) -> Iterator[Pending | Skipped]:
    """The rows of tables; one that cannot be used is skipped with the reason.

    Args:
        split: ``train`` or ``test``; without ``held_out_share`` either is all of them.
        path: a table with a line of column names, a folder of them, a pattern, or braces.
        images: the folder that image names start from, and must stay in; the table's by default.
        image_column: by default the first of ``IMAGE_COLUMNS`` that is there.
        caption_column: by default the first of ``CAPTION_COLUMNS`` that is there.
        held_out_share: share of the pictures that belong to ``test`` and not to ``train``, 0 to 1;
            of the ids where pictures have no names.

    Raises:
        DataError: a file cannot be read, or lacks the columns.
    """
    side = Side(split, held_out_share)
    found = files.find(path, SUFFIXES)
    for file, label in zip(found, files.labels(found), strict=True):
        root = (Path(images).expanduser() if images else file.parent).resolve()
        table = (_parquet if file.suffix.lower() == ".parquet" else _separated)(file, label)
        columns = next(table)
        assert not isinstance(columns, Skipped)
        names = _renamed(file, [name for name, _ in columns], image_column, caption_column)
        number = 0
        for row in table:
            number += 1
            if isinstance(row, Skipped):
                yield row
                continue
            where = f"row {number}" if len(found) == 1 else f"{label}: row {number}"
            cells = [(names[name], value) for name, value in row if name in names]
            reading = partial(read, partial(_record, cells), where, partial(_image, root), side)
            yield Pending(reading, _nbytes([value for _, value in cells]), where)


def files_stamp(
    path: str,
    images: str | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    held_out_share: float = 0.0,
) -> str:
    """Sizes and times of the tables; images that change in place are not noticed."""
    return files.stamp(files.find(path, SUFFIXES))


def _renamed(
    file: Path, columns: Sequence[str], image: str | None, caption: str | None
) -> dict[str, str]:
    """What a record calls the columns that it takes.

    Raises:
        DataError: a column that is named is not there, or nothing says what an image shows.
    """
    named = {"image": image, "caption": caption}
    usual = {"image": IMAGE_COLUMNS, "caption": CAPTION_COLUMNS}
    names = {name: name for name in _KNOWN if name in columns}
    for key, chosen in named.items():
        column = chosen or next((name for name in usual[key] if name in columns), None)
        needed = key == "image" or not names.keys() & {"question", "conversations"}
        if column is not None and column in columns:
            if chosen or needed:
                names[column] = key
        elif chosen or needed:
            what = f"no column {chosen!r}" if chosen else f"no column of {key}s"
            raise DataError(
                f"{file} has {what}, but {', '.join(columns)}; name it with {key}_column"
            )
    return names


def _record(cells: Cells) -> dict[str, Any]:
    return {column: value for column, value in cells if value is not None}


def _nbytes(value: Any) -> int:
    if isinstance(value, dict | list):
        return sum(map(_nbytes, value.values() if isinstance(value, dict) else value))
    return len(value) if isinstance(value, str | bytes) else 0


def _image(root: Path, image: Any) -> bytes:
    """An image of a row: named, or there itself."""
    if isinstance(image, dict):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes):
        files.check_size(len(image), "image")
        return image
    return files.read_inside(root, image)


def _separated(file: Path, label: str) -> Iterator[Cells | Skipped]:
    """The columns of a CSV or TSV file, then its rows."""
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    try:
        # Bytes that are not UTF-8 are carried along, so that they spoil no row but their own.
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            lines = csv.reader(text, delimiter=delimiter)
            columns = next(lines, [])
            yield [(column, None) for column in columns]
            while True:
                try:
                    row = next(lines, None)
                except csv.Error as error:
                    yield Skipped(f"{label}: line {lines.line_num}", str(error), "too long")
                    continue
                if row is None:
                    return
                if len(row) == len(columns):
                    yield list(zip(columns, row, strict=True))
                elif row:
                    count = f"{len(row)} cells for {len(columns)} columns"
                    yield Skipped(f"{label}: line {lines.line_num}", count)
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error


def _parquet(file: Path, label: str) -> Iterator[Cells | Skipped]:
    """The columns of a Parquet file, then its rows."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f"{file} needs pyarrow; pip install 'lightning-mono[parquet]'") from error
    number = 0
    try:
        with parquet.ParquetFile(file) as table:
            columns = table.schema_arrow.names
            yield [(column, None) for column in columns]
            for batch in table.iter_batches(_BATCH):
                for row in range(batch.num_rows):
                    number += 1
                    try:
                        yield [(c, _cell(batch.column(i)[row])) for i, c in enumerate(columns)]
                    except UnicodeDecodeError as error:
                        yield Skipped(f"{label}: row {number}", f"not UTF-8: {error}", "bad text")
    except (pyarrow.ArrowException, OSError) as error:
        if not number:
            raise DataError(f"cannot read {file}: {_first_line(error)}") from error
        reason = f"is damaged behind row {number}: {_first_line(error)}"
        yield Skipped(label, reason)


def _cell(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        if not hasattr(scalar, "as_buffer"):  # text inside a list or an object
            raise
        return scalar.as_buffer().to_pybytes().decode(errors="surrogateescape")  # as from a CSV


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
