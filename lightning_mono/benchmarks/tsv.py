"""VLMEvalKit's format: a table with tabs, images in it as base64.

What is followed of it (`vlmeval/dataset/image_base.py` and the files of the data sets): an `image`
of at most 64 characters is the index of the row that holds the image; a cell may be a list in
Python's notation; rows without an image are left out; rotations of a question are rows whose index
is the same modulo a million, or whose `g_index` is the same. Unlike there, where pandas takes
"None" or "NA" for an empty cell, only an empty cell is empty.
"""

from __future__ import annotations

import ast
import csv
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from lightning_mono.benchmarks.benchmark import Benchmark, Item
from lightning_mono.benchmarks.pictures import Picture, from_base64, from_file
from lightning_mono.benchmarks.prompts import PROMPTS
from lightning_mono.benchmarks.questions import read_item
from lightning_mono.benchmarks.record import Problems, Record
from lightning_mono.data.sample import SampleError
from lightning_mono.errors import DataError
from lightning_mono.metrics import (
    METRICS,
    BoxQuestion,
    Captions,
    Choice,
    HallusionQuestion,
    MathProblem,
    OpenQuestion,
    YesNo,
)

LONGEST_INDEX = 64  # characters; a longer cell of `image` is an image
ROTATION = 1_000_000

FILES: Mapping[str, str] = {
    "ai2d": r"AI2D_TEST(_NO_MASK)?",
    "ccbench": r"CCBench",
    "chartqa": r"ChartQA_TEST",
    "coco": r"COCO_VAL",
    "docvqa": r"DocVQA_(VAL|TEST)",
    "gqa": r"GQA_TestDev_Balanced",
    "hallusionbench": r"HallusionBench",
    "infovqa": r"InfoVQA_(VAL|TEST)",
    "mathvista": r"MathVista_MINI",
    "mmbench": r"MMBench(_DEV|_TEST)?(_EN|_CN)?(_V11)?",
    "mme": r"MME",
    "mmmu": r"MMMU_(DEV_VAL|TEST)",
    "mmvet": r"MMVet",
    "ocrbench": r"OCRBench",
    "refcoco": r"RefCOCO",
    "scienceqa": r"ScienceQA_(VAL|TEST)",
    "seed": r"SEEDBench_IMG",
    "textvqa": r"TextVQA_VAL",
}
"""What VLMEvalKit calls the file of each, as a pattern of its whole name without .tsv."""

SPLITS = {"mmmu": "validation"}
"""Where a file holds several splits, the one whose figure papers quote."""


@dataclass(frozen=True)
class Row:
    """A row: where it is in the file, and its cells by column; one that is not there is empty."""

    where: str
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")


def read_tsv(path: Path, scored_as: str | None = None) -> Benchmark:
    """Read a benchmark.

    Args:
        path: the file; images that are named by path lie beside it, or in ``images/<its name>``.
        scored_as: a name in `METRICS`; by default by the file's name, as VLMEvalKit has it.

    Raises:
        DataError: a line for each of the first problems: file, row, column, what to do.
    """
    scored_as = scored_as or _scoring_of(path)
    rows, notes = _chosen(_rows(path), SPLITS.get(scored_as))
    images, problems = _Images(path, rows), Problems(path)
    items: list[Item] = []
    first: dict[str, str] = {}  # index to where it is
    for row in rows:
        record = _record(row, scored_as)
        item = read_item(record, scored_as, images.of(row, record))
        if row["index"] and first.setdefault(row["index"], row.where) != row.where:
            record.note("id", f"{row['index']!r} is that of {first[row['index']]}; give another")
        for problem in record.problems:
            problems.add(row.where, problem)
        if item is not None:
            items.append(item)
    problems.stop()
    if not items:
        raise DataError(f"{path}: holds no rows with an image; check the file")
    prompt = PROMPTS["mmbench_cn" if scored_as == "mmbench" and "_CN" in path.stem else scored_as]
    return Benchmark(path.stem, scored_as, tuple(items), prompt, str(path), tuple(notes))


def _chosen(rows: list[Row], split: str | None) -> tuple[list[Row], list[str]]:
    """The rows that are asked, and notes on those that are not."""
    notes = []
    chosen = [row for row in rows if row["image"] or "image" not in row.cells]
    if len(chosen) < len(rows):
        notes.append(f"{len(rows) - len(chosen)} rows without an image are left out.")
    of_split = [row for row in chosen if row["split"] == split]
    if of_split and len(of_split) < len(chosen):
        notes.append(f"{len(chosen) - len(of_split)} rows that are not of {split} are left out.")
        chosen = of_split
    return chosen, notes


def _scoring_of(path: Path) -> str:
    for scored_as, pattern in FILES.items():
        if re.fullmatch(pattern, path.stem):
            return scored_as
    raise DataError(
        f"{path}: no file of VLMEvalKit is called so; say how it is scored with "
        f"--benchmark SCORING={path.name}, SCORING being one of {', '.join(METRICS)}"
    )


def _rows(path: Path) -> list[Row]:
    """The rows as column to text, and where each is.

    Raises:
        DataError: the file cannot be read, or has no rows, or a row has too many cells.
    """
    limit = csv.field_size_limit(sys.maxsize)  # the process's; a picture is longer
    rows: list[Row] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t")
            columns = next(reader, [])
            if "index" not in columns or not {"image", "image_path"} & set(columns):
                raise DataError(
                    f"{path}, line 1: its columns need index, and image or image_path; "
                    f"they are {', '.join(columns)[:200] or 'none'}"
                )
            for number, cells in enumerate(reader, 1):
                where = f"row {number} (line {reader.line_num})"
                if len(cells) != len(columns):
                    raise DataError(
                        f"{path}, {where}: has {len(cells)} cells for {len(columns)} columns; "
                        "write tabs between cells only, and quotes around cells that hold them"
                    )
                rows.append(Row(where, dict(zip(columns, cells, strict=True))))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}; check its quotes") from error
    finally:
        csv.field_size_limit(limit)
    if not rows:
        raise DataError(f"{path}: holds no rows; check that all of it was downloaded")
    return rows


class _Images:
    """The images of a table, each decoded once however many rows name it."""

    def __init__(self, path: Path, rows: list[Row]) -> None:
        self.roots = (path.parent, path.parent / "images" / path.stem)
        self.cells = {row["index"]: row["image"] for row in rows}
        self.read: dict[str, Picture] = {}

    def of(self, row: Row, record: Record) -> list[Picture]:
        """The pictures of a row; what is wrong with one is noted."""
        key = "image" if row["image"] else "image_path"
        pictures = []
        try:
            for cell in _texts(self._own(row[key]) if key == "image" else row[key]):
                if cell not in self.read:
                    self.read[cell] = from_base64(cell) if key == "image" else self._file(cell)
                pictures.append(self.read[cell])
        except SampleError as error:
            record.note(key, f"{error}; put it right, or leave the row out")
        return pictures

    def _own(self, cell: str) -> str:
        """The cell that holds the image: this one, or that of the row that it names."""
        if len(cell) > LONGEST_INDEX:
            return cell
        named = self.cells.get(cell, "")
        if len(named) <= LONGEST_INDEX:
            fault = "has no image of its own" if cell in self.cells else "is the index of no row"
            raise SampleError("missing file", f"names row {cell!r}, which {fault}")
        return named

    def _file(self, name: str) -> Picture:
        if not name:
            raise SampleError("missing file", "is empty")
        for root in self.roots[1:]:
            if (root / name).is_file():
                return from_file(name, root)
        return from_file(name, self.roots[0])


def _texts(cell: str) -> list[str]:
    """The texts of a cell that may be a list in Python's notation."""
    if len(cell) > 1 and cell[0] == "[" and cell[-1] == "]":
        try:
            value = ast.literal_eval(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return [cell]
        return [str(each) for each in value]
    return [cell]


def _record(row: Row, scored_as: str) -> Record:
    """A row under the names of the project's own format."""
    values: dict[str, Any] = {
        "id": row["index"],
        "question": row["question"],
        "hint": row["hint"],
        "options": {letter: row[letter] for letter in ascii_uppercase if row[letter]},
        "answer": row["answer"],
        "kind": row["category"],
    }
    further, called = _FAMILIES.get(METRICS[scored_as].question, _answers)(row)
    names = {"id": "index", "kind": "category", "group": "index", **called}
    return Record({**values, **further}, names)


Family = tuple[dict[str, Any], dict[str, str]]
"""What a family reads beside the usual columns, and what the columns of its keys are called."""


def _answers(row: Row) -> Family:
    return {"answer": _texts(row["answer"]) if row["answer"] else ""}, {}


def _captions(row: Row) -> Family:
    return {"captions": _texts(row["answer"]) if row["answer"] else ""}, {"captions": "answer"}


def _choice(row: Row) -> Family:
    """Rotations of one question share `g_index`, or the index modulo a million."""
    index = row["index"]
    rotated = str(int(index) % ROTATION) if index.isdecimal() else index
    return {"group": row["g_index"] or rotated}, {}


def _yes_no(row: Row) -> Family:
    """Without paths, the two questions of an image share the index of the row that has it."""
    shared = row["image"] if len(row["image"]) <= LONGEST_INDEX else row["index"]
    return {"group": row["image_path"] or shared}, {"group": "image_path"}


def _hallusion(row: Row) -> Family:
    """Set, figure and question are the fourth to sixth part of an index, counted by its strokes."""
    names = ("set_id", "figure_id", "question_id")
    parts = [*row["index"].split("_"), *[""] * 6][3:6]
    further = {"category": row["category"], "subcategory": row["l2-category"]}
    called = {"subcategory": "l2-category"}
    called |= {name: f"index, part {place} by _" for place, name in enumerate(names, 4)}
    return {**further, **dict(zip(names, parts, strict=True))}, called


def _problem(row: Row) -> Family:
    lists = {key: _texts(row[key]) if row[key] else "" for key in ("choices", "skills")}
    further = {key: row[key] for key in ("answer_type", "precision")}
    return {**lists, **further, "kind": row["task"]}, {"kind": "task"}


def _open(row: Row) -> Family:
    names = [name.strip() for name in row["category"].split(",") if name.strip()]
    return {"capabilities": names}, {"capabilities": "category"}


def _box(row: Row) -> Family:
    columns = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    further = {"box": [row[column] for column in columns]}
    return {**further, **{key: row[key] for key in ("width", "height")}}, {"box": "bbox_x1..y2"}


_FAMILIES: Mapping[type, Callable[[Row], Family]] = {
    BoxQuestion: _box,
    Captions: _captions,
    Choice: _choice,
    HallusionQuestion: _hallusion,
    MathProblem: _problem,
    OpenQuestion: _open,
    YesNo: _yes_no,
}
