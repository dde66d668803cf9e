"""The project's own format: JSON, one object a line, the first of which may speak of them all.

    {"benchmark": "signs", "scoring": "docvqa", "prompt": "{question} Be brief."}
    {"id": "1", "image": "signs/1.png", "question": "What does it say?", "answers": ["Stop"]}

`docs/benchmarks.md` has the keys of each family.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from lightning_mono.benchmarks.benchmark import Benchmark, Item, repeated
from lightning_mono.benchmarks.pictures import Picture, from_base64, from_file
from lightning_mono.benchmarks.prompts import PROMPTS, Prompt, other_words
from lightning_mono.benchmarks.questions import read_item
from lightning_mono.benchmarks.record import Problems, Record
from lightning_mono.data.sample import SampleError
from lightning_mono.errors import DataError
from lightning_mono.metrics import METRICS

_HEAD = "benchmark"
_BOM = b"\xef\xbb\xbf"


def read_jsonl(path: Path, scored_as: str | None = None) -> Benchmark:
    """Read a benchmark.

    Args:
        path: the file; paths of images start from its folder, and stay in it.
        scored_as: a name in `METRICS`; by default the first line says it.

    Raises:
        DataError: a line for each of the first problems: file, line, key, what to do.
    """
    problems = Problems(path)
    lines = _objects(path, problems)
    first, head = next(lines, None), {}
    if first is not None and _HEAD in first[1]:
        head = first[1]
    elif first is not None:
        lines = chain([first], lines)
    name, scored_as, prompt = _head(Record(head), path, scored_as)
    items: list[tuple[int, Item]] = []
    for number, values in lines:
        record = Record(values)
        item = read_item(record, scored_as, _images(record, path.parent))
        record.read.add("note")
        for problem in record.unknown():
            problems.add(f"line {number}", problem)
        if item is not None and not record.problems:
            items.append((number, item))
    for identity, places in repeated(item.id for _, item in items).items():
        earlier, later = items[places[0]][0], items[places[1]][0]
        problems.add(f"line {later}", f"id: {identity!r} is that of line {earlier}; give another")
    problems.stop()
    if not items:
        raise DataError(f"{path}: holds no records; write one question a line")
    return Benchmark(name, scored_as, tuple(item for _, item in items), prompt, str(path))


def _objects(path: Path, problems: Problems) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, object) of every line that is not blank."""
    try:
        raw = path.read_bytes().removeprefix(_BOM)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    for number, line in enumerate(raw.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode())
        except UnicodeDecodeError as error:
            problems.add(f"line {number}", f"is not UTF-8 at byte {error.start}; save it as UTF-8")
        except (json.JSONDecodeError, RecursionError) as error:
            what = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
            problems.add(f"line {number}", f"is not JSON: {what}; write one object a line")
        else:
            if isinstance(value, dict):
                yield number, value
            else:
                problems.add(f"line {number}", "is not an object; write {...} on each line")


def _head(head: Record, path: Path, given: str | None) -> tuple[str, str, Prompt]:
    """The name, the scoring and the prompt.

    Raises:
        DataError: what is wrong with the first line.
    """
    name = head.text(_HEAD, default=path.stem)
    said = head.text("scoring", default="")
    scored_as = given or said or path.stem
    if scored_as not in METRICS:
        where = f"{path}, line 1: scoring: " if said and not given else f"{path}: "
        raise DataError(
            f"{where}{scored_as!r} is no scoring; say which with a first line "
            f'{{"benchmark": "...", "scoring": "..."}}, of {", ".join(METRICS)}'
        )
    prompt = PROMPTS[scored_as]
    most = head.whole("max_new_tokens", prompt.max_new_tokens)
    if most < 1:
        head.note("max_new_tokens", f"is {most}; it must be 1 or more")
    written = head.text("prompt", default="")
    head.read.add("note")
    problems = Problems(path)
    try:
        prompt = replace(other_words(prompt, written) if written else prompt, max_new_tokens=most)
    except DataError as error:
        head.problems.append(str(error))
    for problem in head.unknown():
        problems.add("line 1", problem)
    problems.stop()
    return name, scored_as, prompt


def _images(record: Record, root: Path) -> list[Picture]:
    """The pictures of a record; what is wrong with one is noted."""
    one, several = record.has("image"), record.has("images")
    if one and several:
        record.note("image", "stands beside images; give one of the two")
    key = "images" if several else "image"
    value = record.values.get(key)
    given = value if several and isinstance(value, list) else [value] if one or several else []
    pictures: list[Picture] = []
    for place, image in enumerate(given):
        where = f"number {place + 1} " if len(given) > 1 else ""
        try:
            pictures.append(_picture(image, root))
        except SampleError as error:
            record.note(key, f"{where}{error}; put it right or remove it")
    return pictures


def _picture(image: Any, root: Path) -> Picture:
    if not isinstance(image, str):
        raise SampleError("malformed record", "is neither a path nor a data: address")
    if not image.startswith("data:"):
        return from_file(image, root)
    start, comma, data = image.partition(",")
    if not comma or not start.endswith(";base64"):
        raise SampleError("malformed record", "is a data: address without ;base64,")
    return from_base64(data)
