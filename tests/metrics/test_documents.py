"""ANLS of documents and relaxed accuracy of charts, by hand-worked cases and by law."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_mono.metrics import ANLS, EditSimilarity, Question, RelaxedAccuracy
from lightning_mono.metrics.anls import edit_distance, similarity
from lightning_mono.metrics.relaxed import relaxed_match


@pytest.mark.parametrize(
    ("one", "other", "edits"),
    [
        ("", "", 0),
        ("", "abc", 3),
        ("kitten", "sitting", 3),
        ("flaw", "lawn", 2),
        ("é", "e", 1),
        ("x", "y" * 40 + "x", 40),  # far off the diagonal
    ],
)
def test_edit_distance(one: str, other: str, edits: int) -> None:
    assert edit_distance(one, other) == edit_distance(other, one) == edits


@given(*[st.text("ab", max_size=8)] * 3)
def test_edit_distance_is_a_distance(one: str, two: str, three: str) -> None:
    assert (edit_distance(one, two) == 0) == (one == two)
    assert edit_distance(one, three) <= edit_distance(one, two) + edit_distance(two, three)
    assert edit_distance(one, two) >= abs(len(one) - len(two))


@pytest.mark.parametrize(
    ("said", "answers", "score"),
    [
        ("New York", ("new  york",), 1.0),  # case and blanks do not count
        ("", ("",), 1.0),
        ("", ("12",), 0.0),
        ("12", ("12", "twelve"), 1.0),
        ("1,000", ("1000",), 0.8),
        ("12%", ("12",), 2 / 3),
        ("abcd", ("abxx",), 0.5),  # exactly a half stands
        ("abc", ("axx",), 0.0),  # a third does not
        ("naïve", ("naive",), 0.8),
        ("ab", ("xyz", "abc"), 2 / 3),  # the best of several
        (" ab ", ("ab",), 1.0),  # the distance of stripped texts, over the length as it came
        (" ac  ", ("ab",), 0.8),
    ],
)
def test_anls(said: str, answers: tuple[str, ...], score: float) -> None:
    metric = ANLS({"q": Question(answers)})
    metric.update([said], ["q"])
    assert metric.compute()["anls"].item() == pytest.approx(score)


@given(st.text(), st.text())
def test_similarity_is_a_share_and_one_for_the_answer_itself(said: str, answer: str) -> None:
    assert 0 <= similarity(said, answer) <= 1
    assert similarity(answer, answer) == 1


@pytest.mark.parametrize(
    ("said", "answer", "right"),
    [
        ("5", "5.0", True),
        ("105", "100", True),  # 5 % is within 5 %
        ("105.1", "100", False),
        ("95", "100", True),
        ("100", "95", False),  # of the answer, not of the prediction
        ("-3.1", "-3", True),
        ("3", "-3", False),
        ("12%", "0.12", True),
        ("12%", "12", False),
        ("12.5%", "12%", True),
        ("1,000", "1000", False),  # not a number to any of the field's scripts
        ("1,000", "1,000", True),
        ("0", "0", True),
        ("0.0", "0", False),  # nothing is within 5 % of 0, so texts are compared
        ("1e3", "1000", True),
        ("nan", "5", False),
        ("Yes", "yes", True),
        ("yes.", "yes", False),
        ("", "yes", False),
        ("%", "5%", False),
        ("５", "5", True),
    ],
)
def test_relaxed_match(said: str, answer: str, right: bool) -> None:
    assert relaxed_match(said, answer) is right


def test_relaxed_accuracy_strips_takes_the_best_answer_and_splits_by_kind() -> None:
    metric = RelaxedAccuracy(
        {"1": Question(("7", "8"), "human"), "2": Question(("Peru",), "augmented")}
    )
    metric.update([" 8.2\n", "Chile"], ["1", "2"])
    results = metric.compute()
    assert results["accuracy"] == 0.5
    assert (results["accuracy/human"], results["accuracy/augmented"]) == (1, 0)


@given(st.floats(1e-3, 1e6), st.floats(0, 0.2))
def test_the_tolerance_is_five_per_cent(answer: float, off: float) -> None:
    if abs(off - 0.05) > 1e-6:
        assert relaxed_match(repr(answer * (1 + off)), repr(answer)) == (off < 0.05)


@pytest.mark.parametrize(
    ("said", "answers", "score"),
    [("abcd", ("abxx",), 0.5), ("abcd", ("axxx", "xxxx"), 0.25), ("", ("page",), 0.0)],
)
def test_of_a_page_what_is_read_counts_below_a_half_too(
    said: str, answers: tuple[str, ...], score: float
) -> None:
    metric = EditSimilarity({"q": Question(answers)})
    metric.update([said], ["q"])
    assert metric.compute()["similarity"].item() == pytest.approx(score)
