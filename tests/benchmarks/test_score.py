"""Scores beside guesses, averages where all are there, parts that keep their groups."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_mono.benchmarks.benchmark import Benchmark, Item
from lightning_mono.benchmarks.prompts import Prompt, Words
from lightning_mono.benchmarks.results import as_json, averages, table
from lightning_mono.benchmarks.score import KIND_MAJORITY, MAJORITY, Scored, make_metric, score
from lightning_mono.errors import DataError
from lightning_mono.metrics import MULTIMODAL, Captions, Choice, Question, YesNo, average


def benchmark(scoring: str, *questions: object) -> Benchmark:
    items = tuple(Item(str(n), Words("?"), q) for n, q in enumerate(questions))  # type: ignore[arg-type]
    return Benchmark(scoring, scoring, items, Prompt("{question}", 4), "here")


def scored(asked: Benchmark, *said: str) -> Scored:
    return score(asked, {str(n): text for n, text in enumerate(said)}, make_metric(asked))


def test_guesses_are_the_best_that_one_answer_gives() -> None:
    kinds = {"shape": ("circle", "circle", "square"), "there": ("yes", "no", "yes", "yes")}
    asked = benchmark(
        "exact_match", *(Question((a,), kind) for kind, answers in kinds.items() for a in answers)
    )
    found = scored(asked, "circle", "square", "square", "yes", "yes", "yes", "no")
    assert found.quoted == pytest.approx(100 * 4 / 7)
    assert found.baselines[MAJORITY] == pytest.approx(100 * 3 / 7)
    assert found.baselines[KIND_MAJORITY] == pytest.approx(100 * 5 / 7)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), min_size=1, max_size=30))
def test_no_single_answer_beats_the_guesses(pairs: list[tuple[str, str]]) -> None:
    asked = benchmark("exact_match", *(Question((answer,), kind) for answer, kind in pairs))
    for answer in "abc":
        found = scored(asked, *[answer] * len(pairs))
        assert found.quoted <= found.baselines[MAJORITY] + 1e-9
        best = found.baselines.get(KIND_MAJORITY, found.baselines[MAJORITY])
        assert found.baselines[MAJORITY] <= best + 1e-9


def test_a_letter_for_all_fails_in_rotation() -> None:
    rows = [Choice({"A": "x", "B": "y"}, a, "", "1") for a in "AB"]
    found = scored(benchmark("mmbench", *rows), "A", "B")
    assert (found.quoted, found.baselines[MAJORITY]) == (100, 0)


def test_captions_are_also_counted_where_they_are_a_reference() -> None:
    asked = benchmark("coco", Captions(("a red cat", "a cat")), Captions(("two dogs",)))
    found = scored(asked, "A cat.", "one dog")
    assert found.results["exact"] == 0.5
    assert [found.right(item) for item in asked.items] == [True, False]
    assert found.baselines == {}


def test_a_limit_keeps_together_what_is_scored_together() -> None:
    pairs = [YesNo(str(n // 2), "yes", "color") for n in range(6)]
    asked = benchmark("mme", *pairs)
    part = asked.first(3)
    assert ([item.id for item in part.items], part.part_of) == (["0", "1", "2", "3"], 6)
    assert scored(part, "yes", "yes", "yes", "no").quoted == 100 * 0.75 + 100 * 0.5
    assert asked.first(5) is asked
    assert asked.first(3).first(1).part_of == 6


def test_questions_that_do_not_go_together_are_a_data_error() -> None:
    with pytest.raises(DataError, match=r"here: MME asks two questions of each image"):
        make_metric(benchmark("mme", YesNo("1", "yes", "color")))


def quoted(values: dict[str, float], part: str = "") -> list[Scored]:
    found = []
    for name, value in values.items():
        asked = benchmark(name)
        asked = replace(asked, part_of=9) if name == part else asked
        found.append(Scored(asked, {}, {}, value, {}))
    return found


def test_averages_need_all_their_members_whole() -> None:
    values = {name: marks / 2 for name, marks in MULTIMODAL.items()}
    assert averages(quoted(values)) == {"Avg-MM": average(values, MULTIMODAL)}
    assert averages(quoted(dict(list(values.items())[1:]))) == {}
    assert averages(quoted(values, part="mme")) == {}
    assert averages(quoted({**values, "gqa": 50.0}))["Avg-MM"] == 50


def test_the_table_has_a_line_for_each_benchmark_and_average() -> None:
    values = {name: marks / 2 for name, marks in MULTIMODAL.items()}
    found = quoted(values)
    results = {
        "benchmarks": [as_json(each, Path("out")) for each in found],
        "averages": averages(found),
        "page": "samples.html",
    }
    lines = table(results).splitlines()
    assert len(lines) == 2 + len(MULTIMODAL) + 1 + 1
    assert any(line.split()[:3] == ["mme", "total", "1,400.0"] for line in lines)
    assert any(line.split() == ["Avg-MM", "average", "50.0"] for line in lines)
