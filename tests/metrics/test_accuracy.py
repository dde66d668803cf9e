"""Exact match: what counts as the same answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_mono.metrics import ExactMatch, Question, matches, normalise


@pytest.mark.parametrize("said", ["Red", " red ", "red.", "RED .", "\nred"])
def test_case_space_and_full_stop_do_not_count(said: str) -> None:
    assert matches(said, "red")


@pytest.mark.parametrize("said", ["", "reddish", "a red", "red red", "not red", "r ed", "red!"])
def test_every_other_difference_counts(said: str) -> None:
    assert not matches(said, "red")


@given(st.text())
def test_upper_case_and_space_around_never_matter(text: str) -> None:
    assert matches(text, f"  {text}\t")
    assert normalise(text) == normalise(text).strip() == normalise(text).lower()


def test_any_of_several_answers_is_right() -> None:
    metric = ExactMatch({"q": Question(("bike", "bicycle"))})
    metric.update(["Bicycle."], ["q"])
    assert metric.compute()["accuracy"] == 1
    with pytest.raises(ValueError, match="question q: it has no answer"):
        ExactMatch({"q": Question(())})
