"""What all metrics of answers share: each question counts once, and none is forgotten."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_mono.metrics import ExactMatch, Question

QUESTIONS = {
    "1": Question(("red",), "colour"),
    "2": Question(("blue",), "colour"),
    "3": Question(("yes",), "yes/no"),
    "4": Question(("two",)),
}


def test_means_overall_and_by_kind() -> None:
    metric = ExactMatch(QUESTIONS)
    metric.update(["red", "red"], ["1", "2"])
    metric.update(["yes", "two"], ["3", "4"])
    results = {name: value.item() for name, value in metric.compute().items()}
    assert results == {
        "accuracy": 0.75,
        "accuracy/colour": 0.5,
        "accuracy/yes/no": 1.0,
        "questions": 4,
    }


def test_means_over_a_part_are_not_given() -> None:
    metric = ExactMatch(QUESTIONS)
    metric.update(["red", "yes"], ["1", "3"])
    with pytest.raises(ValueError, match="2 of 4 questions are unanswered, the first is '2'"):
        metric.compute()


def test_a_repeated_question_counts_once() -> None:
    metric = ExactMatch(QUESTIONS)
    metric.update(["red", "no", "no", "no", "red"], ["1", "2", "3", "4", "1"])
    metric.update(["red"], ["1"])
    assert metric.compute()["accuracy"] == 0.25


def test_unknown_questions_and_unequal_lists_are_refused_and_change_nothing() -> None:
    metric = ExactMatch(QUESTIONS)
    with pytest.raises(ValueError, match="'9' is not the id of one of the 4 questions"):
        metric.update(["red", "red"], ["1", "9"])
    with pytest.raises(ValueError, match=r"longer|shorter"):
        metric.update(["red"], ["1", "2"])
    metric.update([], [])
    assert not metric.answered.any()
    with pytest.raises(ValueError, match="needs at least one"):
        ExactMatch({})


def test_reset_forgets_all_answers() -> None:
    metric = ExactMatch(QUESTIONS)
    metric.update(["red"] * 4, list(QUESTIONS))
    metric.reset()
    with pytest.raises(ValueError, match="4 of 4"):
        metric.compute()


@given(st.permutations(range(24)), st.integers(1, 24))
def test_order_and_batches_do_not_matter(order: list[int], size: int) -> None:
    questions = {str(n): Question((str(n % 5),), f"kind {n % 3}") for n in range(24)}
    whole, parts = ExactMatch(questions), ExactMatch(questions)
    said = [str(n % 4) for n in range(24)]
    whole.update(said, list(questions))
    for start in range(0, 24, size):
        batch = order[start : start + size]
        parts.update([said[n] for n in batch], [str(n) for n in batch])
    expected = whole.compute()
    assert all(torch.equal(value, expected[name]) for name, value in parts.compute().items())
