"""MathVista: extraction by rules, a reader for the rest, and comparison by type."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lightning_mono.metrics import MathProblem, MathVistaAccuracy, Request
from lightning_mono.metrics.mathvista import extract_by_rules, normalise

CHOICE = MathProblem("Which?", "145°", "text", ("135°", "140°", "145°", "150°"))
INTEGER = MathProblem("How many?", "14", "integer")
FLOAT = MathProblem("How much?", "1.5", "float", precision=1)
LIST = MathProblem("Between which years?", "[2007, 2008]", "list")


@pytest.mark.parametrize(
    ("response", "problem", "extraction"),
    [
        ("", INTEGER, ""),
        (" 14 ", INTEGER, "14"),
        ("14.0", INTEGER, None),
        ("14", FLOAT, "14.0"),
        ('The answer is "14".', INTEGER, "14"),
        ("The answer is 14.", INTEGER, None),  # the official rule wants quotation marks
        ("1,400", INTEGER, None),
        ("145°", CHOICE, "145°"),
        ("(C) 145°", CHOICE, "C"),
        ("The correct answer is C.", CHOICE, "C"),
        ("It must be 145° here", CHOICE, "C"),
        ("135° or 145°", CHOICE, None),
        ("[2007, 2008]", LIST, None),
    ],
)
def test_extraction_by_rules(response: str, problem: MathProblem, extraction: str | None) -> None:
    assert extract_by_rules(response, problem) == extraction


@pytest.mark.parametrize(
    ("extraction", "problem", "normal"),
    [
        ("", CHOICE, None),
        ("C", CHOICE, "145°"),
        ("(c)", CHOICE, "145°"),
        ("E", CHOICE, "135°"),  # no option: the nearest text, of equals the first
        ("145", CHOICE, "145°"),
        ("14.9", INTEGER, "14"),
        ("fourteen", INTEGER, None),
        ("1.46", FLOAT, "1.5"),
        ("1.5%", FLOAT, None),
        ("1e999", INTEGER, None),
        ("[2007, 2008]", LIST, "[2007, 2008]"),
    ],
)
def test_normalisation_by_type(extraction: str, problem: MathProblem, normal: str | None) -> None:
    assert normalise(extraction, problem) == normal


class LastWord:
    """A reader that takes a response's last word, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def verdicts(self, requests: Sequence[Request]) -> list[str]:
        self.asked += requests
        return [request.prediction.split()[-1] for request in requests]


def test_the_reader_is_asked_only_where_rules_find_nothing() -> None:
    problems = {"1": INTEGER, "2": INTEGER, "3": CHOICE}
    said = ["14", "There are 14", "(C) 145°"]
    alone = MathVistaAccuracy(problems)
    alone.update(said, list(problems))
    results = alone.compute()
    assert results["accuracy"].item() == pytest.approx(2 / 3)
    assert results["unread"].item() == pytest.approx(1 / 3)
    reader = LastWord()
    helped = MathVistaAccuracy(problems, reader)
    helped.update(said, list(problems))
    assert helped.compute()["accuracy"] == 1
    assert helped.compute()["unread"] == 0
    assert [request.id for request in reader.asked] == ["2"]
    assert "How many?" in reader.asked[0].prompt
    assert "There are 14" in reader.asked[0].prompt


def test_accuracies_by_task_and_by_skill() -> None:
    problems = {
        "1": MathProblem("?", "1", "integer", kind="geometry", skills=("a", "b")),
        "2": MathProblem("?", "2", "integer", kind="geometry", skills=("b",)),
        "3": MathProblem("?", "3", "integer", kind="figures", skills=("a",)),
    }
    metric = MathVistaAccuracy(problems)
    metric.update(["1", "3", "3"], list(problems))
    results = metric.compute()
    assert results["accuracy/geometry"] == 0.5
    assert results["accuracy/figures"] == 1
    assert (results["skill/a"], results["skill/b"]) == (1, 0.5)


def test_an_answer_outside_of_the_choices_is_refused() -> None:
    with pytest.raises(ValueError, match="question q: its answer '7' is not among its choices"):
        MathVistaAccuracy({"q": MathProblem("?", "7", "text", ("8", "9"))})
