"""The project's own format: every family, every fault in one line, and no other exception."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_mono.benchmarks.find import open_benchmark
from lightning_mono.benchmarks.jsonl import read_jsonl
from lightning_mono.benchmarks.questions import read_item
from lightning_mono.benchmarks.record import Record
from lightning_mono.errors import DataError
from lightning_mono.metrics import (
    METRICS,
    BoxQuestion,
    Captions,
    Choice,
    HallusionQuestion,
    MathProblem,
    OpenQuestion,
    PairQuestion,
    Question,
    YesNo,
)

from .conftest import Write, png

RED = "data:image/png;base64," + base64.b64encode(png()).decode()

GOOD: list[tuple[str, dict[str, Any], object]] = [
    ("docvqa", {"answers": ["27 May", "May 27"]}, Question(("27 May", "May 27"))),
    ("exact_match", {"answer": 5, "kind": "count"}, Question(("5",), "count")),
    (
        "coco",
        {"captions": ["a cat", "one cat"], "kind": "cats"},
        Captions(("a cat", "one cat"), "cats"),
    ),
    (
        "seed",
        {"options": ["red", "blue"], "answer": "B", "kind": "colour", "hint": "look"},
        Choice({"A": "red", "B": "blue"}, "B", "colour"),
    ),
    (
        "mmbench",
        {"options": {"A": "1", "C": "3"}, "answer": "C", "group": 7},
        Choice({"A": "1", "C": "3"}, "C", "", "7"),
    ),
    ("mmmu", {"answer": "42"}, Choice({"A": "42", "B": "Other Answers"}, "A")),
    ("mme", {"answer": "Yes", "kind": "color", "group": "1"}, YesNo("1", "yes", "color")),
    (
        "hallusionbench",
        {
            **{"answer": "no", "category": "vs", "subcategory": "map"},
            **{"set_id": 0, "figure_id": 1, "question_id": 2},
        },
        HallusionQuestion("no", "VS", "map", "0", "1", "2"),
    ),
    (
        "mathvista",
        {"answer": "1.25", "answer_type": "float", "precision": 2, "skills": ["algebra"]},
        MathProblem("what?", "1.25", "float", (), 2, "", ("algebra",)),
    ),
    (
        "mathvista",
        {"answer": "b", "answer_type": "text", "choices": ["a", "b"]},
        MathProblem("what?", "b", "text", ("a", "b")),
    ),
    (
        "mmvet",
        {"answer": "a<AND>b", "capabilities": ["ocr", "math"]},
        OpenQuestion("what?", "a<AND>b", ("ocr", "math")),
    ),
    (
        "mis",
        {"images": ["red.png", RED], "kind": "harm"},
        PairQuestion("what?", (png(), png()), "harm"),
    ),
    (
        "refcoco",
        {"box": [1, 2, 30.5, 40], "width": 100, "height": 50},
        BoxQuestion((1, 2, 30.5, 40), 100, 50),
    ),
]


@pytest.mark.parametrize(("scoring", "record", "question"), GOOD)
def test_each_family_reads_into_its_question(
    scoring: str, record: dict[str, Any], question: object, write: Write
) -> None:
    path = write({"benchmark": "b", "scoring": scoring}, {"id": 1, "question": "what?", **record})
    benchmark = read_jsonl(path)
    (item,) = benchmark.items
    assert (benchmark.name, benchmark.scored_as, item.id) == ("b", scoring, "1")
    assert item.question == question
    assert item.words.question == "what?"
    assert item.words.hint == record.get("hint", "")


def test_all_families_are_tried() -> None:
    assert {METRICS[s].question for s, _, _ in GOOD} == {s.question for s in METRICS.values()}


def test_images_by_path_inline_and_several(write: Write) -> None:
    rest = {"question": "?", "answer": "a"}
    path = write(
        {"benchmark": "b", "scoring": "gqa"},
        {"id": 1, "image": "red.png", **rest},
        {"id": 2, "image": RED, **rest},
        {"id": 3, "images": ["blue.png", RED], **rest},
        {"id": 4, **rest},
    )
    items = read_jsonl(path).items
    blue = (path.parent / "blue.png").read_bytes()
    read = [[picture.read() for picture in item.images] for item in items]
    assert read == [[png()], [png()], [blue, png()], []]


def test_files_are_read_when_they_are_needed(write: Write) -> None:
    record = {"id": 1, "image": "red.png", "question": "?", "answer": "a"}
    path = write({"benchmark": "b", "scoring": "gqa"}, record)
    (item,) = read_jsonl(path).items
    (path.parent / "red.png").write_bytes(png("green"))
    assert item.images[0].read() == png("green")


HEAD = {"benchmark": "b", "scoring": "gqa"}
ROW: dict[str, Any] = {"id": 1, "question": "what?", "answer": "a"}
FAULTS: list[tuple[list[object], str]] = [
    ([HEAD], "holds no records"),
    (["", HEAD], "holds no records"),
    ([ROW], "'own' is no scoring; say which with a first line"),
    ([{**HEAD, "scoring": "gqq"}, ROW], "line 1: scoring: 'gqq' is no scoring"),
    ([{**HEAD, "promt": "a"}, ROW], "line 1: promt: is no key of such a record; did you mean"),
    ([{**HEAD, "prompt": "{questions}"}, ROW], "no field {questions}; did you mean {question}?"),
    ([{**HEAD, "prompt": "mmbnch"}, ROW], "no prompt 'mmbnch'; did you mean 'mmbench'?"),
    ([{**HEAD, "max_new_tokens": "many"}, ROW], "line 1: max_new_tokens: is 'many'"),
    ([{**HEAD, "max_new_tokens": 0}, ROW], "line 1: max_new_tokens: is 0; it must be 1 or more"),
    ([HEAD, "{"], "line 2: is not JSON"),
    ([HEAD, "[" * 100_000], "line 2: is not JSON: nested too deeply"),
    ([HEAD, [1]], "line 2: is not an object"),
    ([HEAD, {"question": "?", "answer": "a"}], "line 2: id: is missing or empty"),
    ([HEAD, ROW, "", ROW], "line 4: id: '1' is that of line 2"),
    ([HEAD, {**ROW, "question": ""}], "line 2: question: is missing or empty"),
    ([HEAD, {**ROW, "answer": None}], "line 2: answers: is missing or empty; give the right"),
    ([HEAD, {**ROW, "answer": []}], "line 2: answer: is an empty list"),
    ([HEAD, {**ROW, "answer": {"a": 1}}], "line 2: answer: holds {'a': 1}, which is no text"),
    ([HEAD, {**ROW, "answers": ["b"]}], "line 2: answer: stands beside answers"),
    (
        [HEAD, {**ROW, "kinds": "a"}],
        "line 2: kinds: is no key of such a record; did you",
    ),
    ([HEAD, {**ROW, "image": "no.png"}], "line 2: image: there is no file"),
    ([HEAD, {**ROW, "image": "/red.png"}], "line 2: image: /red.png is absolute"),
    ([HEAD, {**ROW, "image": "../red.png"}], "line 2: image: ../red.png lies outside"),
    ([HEAD, {**ROW, "image": "own.jsonl"}], "line 2: image: is not an image that can be read"),
    ([HEAD, {**ROW, "image": "data:image/png;base64,!"}], "line 2: image: is not base64"),
    ([HEAD, {**ROW, "image": "data:image/png,abc"}], "without ;base64,"),
    ([HEAD, {**ROW, "image": 3}], "line 2: image: is neither a path nor a data: address"),
    ([HEAD, {**ROW, "images": ["red.png", "no.png"]}], "images: number 2 there is no file"),
    ([HEAD, {**ROW, "image": "red.png", "images": ["red.png"]}], "image: stands beside images"),
    (
        [HEAD, {**ROW, "question": "<image> <image>?", "image": "red.png"}],
        "has 2 <image> for 1",
    ),
]
OTHER_FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("coco", {"captions": []}, "captions: is an empty list"),
    ("coco", {"captions": ["a"], "answer": "a"}, "answer: is no key of such a record"),
    ("seed", {"options": ["a", "b"], "answer": "C"}, "its answer 'C' is not among its options"),
    ("seed", {"options": "ab", "answer": "A"}, "options: is not a list"),
    ("seed", {"options": {"1": "a"}, "answer": "1"}, "options are named by the letters A to Z"),
    (
        "mmbench",
        {"options": ["a"], "answer": "A"},
        "group: is missing or empty; give",
    ),
    ("mme", {"answer": "maybe", "kind": "color", "group": 1}, "it must be one of yes, no"),
    ("mme", {"answer": "yes", "kind": "colour", "group": 1}, "'colour' is not a subtask of MME"),
    ("hallusionbench", {"answer": "no", "category": "VX"}, "category: is 'VX'"),
    ("hallusionbench", {"answer": "no", "category": "VS"}, "set_id: is missing or empty"),
    ("mathvista", {"answer": "1", "answer_type": "int"}, "answer_type: is 'int'"),
    (
        "mathvista",
        {"answer": "c", "answer_type": "text", "choices": ["a"]},
        "not among its choices",
    ),
    ("mathvista", {"answer": "1", "answer_type": "float", "options": ["a"]}, "options: is no key"),
    (
        "mmvet",
        {"answer": "a", "capabilities": ["see"]},
        "its capabilities ('see',) are not",
    ),
    ("mis", {"images": ["red.png"]}, "images: are 1; MIS asks about two"),
    ("ocrbench", {"answer": "a", "kind": "signs"}, "'signs' is not a kind of OCRBench"),
    ("refcoco", {"box": [1, 2, 3], "width": 9, "height": 9}, "box: is [1, 2, 3]; write [left,"),
    ("refcoco", {"box": [3, 2, 1, 4], "width": 9, "height": 9}, "has no area"),
    ("refcoco", {"box": [1, 2, 3, 4], "width": 0, "height": 9}, "width: is 0; give it"),
]
FAULTS += [
    ([{**HEAD, "scoring": s}, {"id": 1, "question": "?", **r}], f) for s, r, f in OTHER_FAULTS
]


@pytest.mark.parametrize(("lines", "says"), FAULTS)
def test_a_fault_names_file_line_key_and_fix(lines: list[object], says: str, write: Write) -> None:
    path = write(*lines)
    with pytest.raises(DataError) as caught:
        read_jsonl(path)
    told = str(caught.value).splitlines()
    assert all(line.startswith(str(path)) for line in told)
    assert any(says in line for line in told), told


def test_all_problems_come_at_once_up_to_a_limit(write: Write) -> None:
    records = [{**ROW, "id": n, "answer": None if n % 2 else "a"} for n in range(60)]
    path = write(HEAD, *records)
    with pytest.raises(DataError) as caught:
        read_jsonl(path)
    told = str(caught.value).splitlines()
    assert [re.findall(r"line (\d+)", line) for line in told[:-1]] == [
        [str(n)] for n in range(3, 43, 2)
    ]
    assert told[-1] == f"{path}: and 10 more problems"


def test_what_is_not_utf8_is_named(write: Write) -> None:
    path = write(HEAD, ROW)
    path.write_bytes(path.read_bytes() + b"\n\xff{}")
    with pytest.raises(DataError, match="line 3: is not UTF-8"):
        read_jsonl(path)


def test_a_link_out_of_the_folder_is_refused(write: Write, tmp_path: Path) -> None:
    path = write(HEAD, {**ROW, "image": "link.png"})
    outside = tmp_path.parent / f"{tmp_path.name}-outside.png"
    outside.write_bytes(png())
    (tmp_path / "link.png").symlink_to(outside)
    with pytest.raises(DataError, match="lies outside"):
        read_jsonl(path)


text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(question=text, answers=st.lists(text, min_size=1, max_size=3), kind=text, name=text)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_whatever_is_written_is_read(
    question: str, answers: list[str], kind: str, name: str, tmp_path: Path
) -> None:
    question = question.replace("<image>", "")
    record = {"id": name, "question": question or "?", "answers": answers, "kind": kind}
    path = tmp_path / "b.jsonl"
    path.write_text(json.dumps(HEAD) + "\n" + json.dumps(record, ensure_ascii=False), "utf-8")
    (item,) = read_jsonl(path).items
    assert (item.id, item.words.question) == (name, question or "?")
    assert item.question == Question(tuple(answers), kind)


@given(where=st.floats(0, 1), junk=st.binary(max_size=6), cut=st.integers(0, 9))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
def test_damage_is_a_data_error_or_nothing(
    where: float, junk: bytes, cut: int, tmp_path: Path
) -> None:
    whole = "\n".join(json.dumps(each) for each in (HEAD, ROW, {**ROW, "id": 2})).encode()
    place = int(where * len(whole))
    path = tmp_path / "b.jsonl"
    path.write_bytes(whole[:place] + junk + whole[place + cut :])
    try:
        read = len(read_jsonl(path).items)
    except DataError as error:
        read = 0
        told = str(error)
    assert read or told.startswith(str(path))


def test_the_scoring_may_be_given_with_the_file(write: Write) -> None:
    path = write(ROW)
    assert open_benchmark(f"docvqa={path}").scored_as == "docvqa"
    assert open_benchmark(str(path.rename(path.with_name("gqa.jsonl")))).scored_as == "gqa"
    with pytest.raises(DataError, match="no scoring 'docvq'; did you mean 'docvqa'"):
        open_benchmark(f"docvq={path}")
    with pytest.raises(DataError, match="no benchmark 'easy_vq'; did you mean 'easy_vqa'"):
        open_benchmark("easy_vq")
    with pytest.raises(DataError, match=r"a benchmark is a \.jsonl or \.tsv file"):
        open_benchmark(str(path.parent))


def test_the_page_on_formats_names_every_key() -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for scoring, values, _ in GOOD:
        record = Record({"id": "1", "question": "what?", **values})
        read_item(record, scoring, ())
        missing = {key for key in record.read if f"`{key}`" not in page}
        assert not missing, (scoring, missing)
