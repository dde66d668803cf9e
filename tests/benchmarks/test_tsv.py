"""VLMEvalKit's tables: each kind of benchmark, how images are shared, what is left out, faults."""

from __future__ import annotations

import base64
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_mono.benchmarks.benchmark import Benchmark
from lightning_mono.benchmarks.tsv import FILES, read_tsv
from lightning_mono.errors import DataError
from lightning_mono.metrics import (
    METRICS,
    BoxQuestion,
    Captions,
    Choice,
    HallusionQuestion,
    MathProblem,
    OpenQuestion,
    Question,
    YesNo,
)

from .conftest import png

RED, BLUE = png(), png("blue")
B_RED, B_BLUE = (base64.b64encode(image).decode() for image in (RED, BLUE))
Rows = list[dict[str, Any]]
Table = Callable[..., Path]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    def write(name: str, rows: Rows) -> Path:
        columns = list(dict.fromkeys(column for row in rows for column in row))
        with (tmp_path / f"{name}.tsv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, delimiter="\t", restval="")
            writer.writeheader()
            writer.writerows(rows)
        return tmp_path / f"{name}.tsv"

    return write


def read(table: Table, name: str, *rows: dict[str, Any]) -> Benchmark:
    base = {"index": 0, "image": B_RED, "question": "what?"}
    return read_tsv(table(name, [{**base, **row} for row in rows]))


FAMILIES: list[tuple[str, str, dict[str, Any], object]] = [
    ("SEEDBench_IMG", "seed", {"A": "x", "B": "None", "answer": "B", "category": "Scene"},
     Choice({"A": "x", "B": "None"}, "B", "Scene", "7")),
    ("MMBench_DEV_EN", "mmbench", {"index": 3_000_007, "A": "x", "B": "y", "answer": "A"},
     Choice({"A": "x", "B": "y"}, "A", "", "7")),
    ("CCBench", "ccbench", {"index": 3_000_007, "g_index": 9, "A": "x", "answer": "A"},
     Choice({"A": "x"}, "A", "", "9")),
    ("MMMU_DEV_VAL", "mmmu", {"index": "validation_Art_1", "A": "x", "answer": "A"},
     Choice({"A": "x"}, "A", "", "validation_Art_1")),
    ("MME", "mme", {"answer": "Yes", "category": "color", "image_path": "color/1.png"},
     YesNo("color/1.png", "yes", "color")),
    ("HallusionBench", "hallusionbench",
     {"index": "VD_x_y_4_2_1", "answer": "no", "category": "VD", "l2-category": "illusion"},
     HallusionQuestion("no", "VD", "illusion", "4", "2", "1")),
    ("TextVQA_VAL", "textvqa", {"answer": "['a', \"it's\", '', 'b']"},
     Question(("a", "it's", "", "b"))),
    ("GQA_TestDev_Balanced", "gqa", {"answer": "left"}, Question(("left",))),
    ("DocVQA_VAL", "docvqa", {"answer": "[unclear"}, Question(("[unclear",))),
    ("OCRBench", "ocrbench", {"answer": "['CENTRE']", "category": "Regular Text Recognition"},
     Question(("CENTRE",), "Regular Text Recognition")),
    ("COCO_VAL", "coco", {"answer": "['a cat', 'one cat']"}, Captions(("a cat", "one cat"))),
    ("MMVet", "mmvet", {"answer": "x<OR>y", "category": "ocr,math"},
     OpenQuestion("what?", "x<OR>y", ("ocr", "math"))),
    ("MathVista_MINI", "mathvista",
     {"answer": "2", "answer_type": "integer", "choices": "['1', '2']", "task": "fqa",
      "skills": "['algebra']", "question_type": "multi_choice"},
     MathProblem("what?", "2", "integer", ("1", "2"), 1, "fqa", ("algebra",))),
    ("RefCOCO", "refcoco",
     {"bbox_x1": 1, "bbox_y1": 2, "bbox_x2": 3.5, "bbox_y2": 4, "width": 10, "height": 20},
     BoxQuestion((1, 2, 3.5, 4), 10, 20)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "scoring", "row", "question"), FAMILIES)
def test_each_file_reads_into_its_questions(
    name: str, scoring: str, row: dict[str, Any], question: object, table: Table
) -> None:
    benchmark = read(table, name, {"index": 7, **row})
    (item,) = benchmark.items
    assert (benchmark.name, benchmark.scored_as) == (name, scoring)
    assert item.question == question
    assert [picture.read() for picture in item.images] == [RED]


def test_every_file_that_is_known_is_scored_somehow() -> None:
    assert set(FILES) <= set(METRICS)


def test_an_image_may_be_that_of_another_row(table: Table) -> None:
    rows = [{"index": n, "question": "?", "answer": "a"} for n in ("0", "1", "2")]
    for row, image in zip(rows, (B_RED, "0", f"['{B_BLUE}', '{B_RED}']"), strict=True):
        row["image"] = image
    items = read(table, "GQA_TestDev_Balanced", *rows).items
    shown = [[picture.read() for picture in item.images] for item in items]
    assert shown == [[RED], [RED], [BLUE, RED]]
    assert items[1].images[0] is items[0].images[0], "an image that is shared is kept once"


def test_questions_of_one_image_are_known_by_its_path_or_its_row(table: Table) -> None:
    both = [{"index": n, "answer": "Yes", "category": "color"} for n in (4, 5)]
    for further in ({"image_path": "a.png"}, {"image": "4"}):
        rows = [both[0], {**both[1], **further}]
        if "image_path" in further:
            rows[0] = {**rows[0], **further}
        first, second = (item.question for item in read(table, "MME", *rows).items)
        assert first == second


def test_images_by_path_lie_beside_the_file_or_in_its_folder(table: Table, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(RED)
    folder = tmp_path / "images" / "GQA_TestDev_Balanced"
    folder.mkdir(parents=True)
    (folder / "b.png").write_bytes(BLUE)
    rows = [
        {"index": n, "image_path": path, "question": "?", "answer": "a"}
        for n, path in enumerate(("a.png", "b.png", "['b.png', 'a.png']"))
    ]
    items = read_tsv(table("GQA_TestDev_Balanced", rows)).items
    shown = [[picture.read() for picture in item.images] for item in items]
    assert shown == [[RED], [BLUE], [BLUE, RED]]


def test_rows_without_an_image_are_left_out_and_told(table: Table) -> None:
    rows = [{"index": n, "image": B_RED if n else "", "answer": "a"} for n in range(3)]
    benchmark = read(table, "GQA_TestDev_Balanced", *rows)
    assert [item.id for item in benchmark.items] == ["1", "2"]
    assert benchmark.notes == ("1 rows without an image are left out.",)


def test_of_several_splits_the_one_that_is_quoted_is_asked(table: Table) -> None:
    rows = [
        {"index": n, "A": "x", "answer": "A", "split": s}
        for n, s in enumerate(("dev", "validation"))
    ]
    benchmark = read(table, "MMMU_DEV_VAL", *rows)
    assert [item.id for item in benchmark.items] == ["1"]
    assert benchmark.notes == ("1 rows that are not of validation are left out.",)


def test_rotations_are_scored_together(table: Table) -> None:
    rows = [
        {"index": 5 + k * 1_000_000, "A": "xy"[k], "B": "yx"[k], "answer": "AB"[k]}
        for k in range(2)
    ]
    benchmark = read(table, "MMBench_DEV_EN", *rows)
    metric = METRICS["mmbench"].metric({i.id: i.question for i in benchmark.items})
    metric.update(["A", "A"], [i.id for i in benchmark.items])
    assert metric.compute()["accuracy"] == 0
    assert metric.compute()["vanilla"] == 0.5
    assert len(benchmark.first(1).items) == 2, "a limit does not part them"


def test_chinese_files_are_asked_in_chinese(table: Table) -> None:
    row = {"A": "x", "answer": "A"}
    assert "请" in read(table, "MMBench_DEV_CN", row).prompt.template
    assert "请" not in read(table, "MMBench_DEV_EN", row).prompt.template


FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("SEEDBench_IMG", {"A": "x", "answer": "B"}, "its answer 'B' is not among its options A"),
    ("SEEDBench_IMG", {"A": "x", "answer": ""}, "answer: is missing or empty"),
    ("SEEDBench_IMG", {"A": "x", "answer": "A", "index": ""}, "index: is missing or empty"),
    ("SEEDBench_IMG", {"A": "x", "answer": "A", "question": ""}, "question: is missing"),
    ("GQA_TestDev_Balanced", {"answer": "a", "image": "9"}, "names row '9', which is the index"),
    ("GQA_TestDev_Balanced", {"answer": "a", "image": "7"}, "which has no image of its own"),
    ("GQA_TestDev_Balanced", {"answer": "a", "image": "!" * 80}, "image: is not base64"),
    ("GQA_TestDev_Balanced", {"answer": "a", "image": "abcd" * 20}, "is not an image"),
    ("MME", {"answer": "Yes", "category": "colour"}, "'colour' is not a subtask of MME"),
    ("MME", {"answer": "Yes", "category": ""}, "category: is missing or empty; name the subtask"),
    ("HallusionBench", {"index": "VD_1", "answer": "no", "category": "VD", "l2-category": "map"},
     "index, part 4 by _: is missing or empty"),
    ("COCO_VAL", {"answer": ""}, "answer: is missing or empty; give the reference captions"),
    ("MMVet", {"answer": "x", "category": ""}, "category: is an empty list"),
    ("RefCOCO", {"bbox_x1": "one", "width": 1, "height": 1}, "bbox_x1..y2: is ['one', '', '', '']"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "says"), FAULTS)
def test_a_fault_names_file_row_column_and_fix(
    name: str, row: dict[str, Any], says: str, table: Table
) -> None:
    with pytest.raises(DataError) as caught:
        read(table, name, {"index": 7, **row})
    (told,) = [line for line in str(caught.value).splitlines() if says in line]
    assert f"{name}.tsv, row 1 (line 2)" in told


def test_faults_of_the_file_itself(table: Table, tmp_path: Path) -> None:
    def refused(content: bytes, name: str = "MME") -> str:
        path = tmp_path / f"{name}.tsv"
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            read_tsv(path)
        assert str(caught.value).startswith(str(path))
        return str(caught.value)

    assert "line 1: its columns need index, and image or image_path" in refused(b"a\tb\n1\t2\n")
    assert "its columns need index" in refused(b"")
    assert "holds no rows" in refused(b"index\timage\n")
    assert "row 1 (line 2): has 3 cells for 2 columns" in refused(b"index\timage\n1\t2\t3\n")
    assert "is not UTF-8" in refused(b"index\timage\n1\t\xff\n")
    assert "say how it is scored with --benchmark SCORING=Own.tsv" in refused(
        b"index\timage\n", "Own"
    )
    rows = [{"index": 1, "answer": "a"}, {"index": 1, "answer": "a"}]
    with pytest.raises(
        DataError, match=r"row 2 \(line 3\): index: '1' is that of row 1 \(line 2\)"
    ):
        read(table, "GQA_TestDev_Balanced", *rows)
    with pytest.raises(DataError, match="cannot be read"):
        read_tsv(tmp_path / "MMBench.tsv")


cell = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).map(
    str.strip
)


@given(question=cell.filter(bool), options=st.lists(cell.filter(bool), min_size=1, max_size=26))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_whatever_is_in_a_cell_is_read(question: str, options: list[str], table: Table) -> None:
    question = question.replace("<image>", "-")
    letters = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", options, strict=False))
    row = {"question": question, **letters, "answer": "A"}
    (item,) = read(table, "SEEDBench_IMG", row).items
    assert item.words.question == question
    assert item.words.options == letters
