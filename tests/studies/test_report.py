"""The page stands alone and holds the study's figures; CSV and JSON hold them unrounded."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from lightning_mono.errors import RecipeError
from lightning_mono.studies.cells import Cell, cells_of
from lightning_mono.studies.load import Study, load_study
from lightning_mono.studies.report import table, write_report
from lightning_mono.studies.report.words import findings
from lightning_mono.studies.results import StudyResults, add_up

Write = Callable[..., Path]
VALUES = {"0.01": (0.70, 0.71, 0.72), "0.03": (0.745, 0.755, 0.765)}
"""What is written as if the runs had measured it."""


def _finish(cell: Cell, value: float) -> None:
    cell.run.path.mkdir(parents=True)
    metrics = {"test": {"accuracy": value, "majority_accuracy": 0.5, "questions": 10}}
    cell.run.metrics.write_text(json.dumps(metrics))
    steps = [{"event": "step", "step": n, "tokens": 60, "seconds": 2.0} for n in (1, 2, 2)]
    cell.run.journal.write_text("".join(json.dumps(step) + "\n" for step in steps))


@pytest.fixture
def study(write_study: Write) -> Study:
    measures = "measures:\n  accuracy:\n    path: test.accuracy\n"
    path = write_study(
        ("perplexity:\n    path: retention.perplexity_after", measures[12:].rstrip()),
        ("form: number", "form: percent"),
        ("better: lower", "better: higher"),
        ("{before: retention.perplexity_before}", "{usual answer: test.majority_accuracy}"),
        ("[0, 1]", "[0, 1, 2]"),
    )
    return load_study(path)


@pytest.fixture
def cells(study: Study, tmp_path: Path) -> list[Cell]:
    found = cells_of(study, tmp_path / "cells")
    for cell in found:
        _finish(cell, VALUES[cell.arm.name][cell.seed])
    return found


@pytest.fixture
def results(study: Study, cells: list[Cell]) -> StudyResults:
    return add_up(study, cells, {})


def test_results_add_up(results: StudyResults) -> None:
    base, other = results.arms
    assert results.baseline is base
    assert base.means["accuracy"].mean == pytest.approx(0.71)
    less = other.differences["accuracy"]
    assert less is not None
    assert less.interval.mean == pytest.approx(0.045)
    assert less.significant
    assert results.references == {"accuracy": {"usual answer": 0.5}}
    assert base.cost is not None
    assert (base.cost.tokens, base.cost.seconds) == (120, 4.0), "a step that ran twice counts once"
    assert base.cost.trainable == base.cost.parameters


def test_the_page_stands_alone(results: StudyResults, tmp_path: Path) -> None:
    page = write_report(results, tmp_path / "out").read_text()
    assert not re.search(r"(src|href)=\"(?!#|data:)", page)
    assert "71.0 ± 2.5" in page
    assert "+4.5" in page
    assert "Which rate is best?" in page
    assert results.study.command in page
    assert page.count("<svg") == 4
    with Image.open(tmp_path / "out/study.png") as picture:
        assert picture.width > 1000


def test_what_was_found_is_said(results: StudyResults, study: Study, cells: list[Cell]) -> None:
    said = findings(results)
    assert "“0.03” comes out highest in accuracy: 75.5 ± 2.5\u202f%" in said
    assert "differs, beyond chance over 3 seeds" in said
    one = [cell for cell in cells if cell.seed == 0]
    assert "nothing can be said of chance" in findings(add_up(study, one, {}))


def test_files_for_programs_are_not_rounded(results: StudyResults, tmp_path: Path) -> None:
    write_report(results, tmp_path / "out")
    arms = list(csv.DictReader(io.StringIO((tmp_path / "out/arms.csv").read_text())))
    assert [arm["arm"] for arm in arms] == ["0.01", "0.03"]
    assert float(arms[1]["accuracy_difference"]) == pytest.approx(0.045, abs=1e-12)
    runs = list(csv.DictReader(io.StringIO((tmp_path / "out/runs.csv").read_text())))
    assert [float(run["accuracy"]) for run in runs] == [0.70, 0.745, 0.71, 0.755, 0.72, 0.765]
    plain = json.loads((tmp_path / "out/results.json").read_text())
    assert plain["arms"][1]["differences"]["accuracy"]["p"] < 0.05


def test_a_part_of_a_study_is_shown_as_what_it_is(
    study: Study, cells: list[Cell], tmp_path: Path
) -> None:
    for cell in cells[2:]:
        cell.run.metrics.unlink()
    failed = {cells[4].recipe.out: "out of luck (log: x.log)"}
    results = add_up(study, cells, failed)
    assert [arm.seeds for arm in results.arms] == [(0,), (0,)]
    assert results.arms[0].means["accuracy"].half is None
    page = write_report(results, tmp_path / "out").read_text()
    assert f"{cells[4].arm.name}, seed {cells[4].seed}: out of luck" in page
    assert "72.0" not in table(results)
    nothing = replace(cells[1], recipe=replace(cells[1].recipe, out=str(tmp_path / "none")))
    half = add_up(study, [cells[0], nothing], {})
    assert half.arms[1].cost is None
    write_report(half, tmp_path / "half")


def test_a_figure_that_is_not_there_is_named(study: Study, cells: list[Cell]) -> None:
    cells[2].run.metrics.write_text('{"test": {"accuracy": null}}')
    with pytest.raises(RecipeError, match=r"accuracy.path: .*metrics.json has no number test.acc"):
        add_up(study, cells, {})
