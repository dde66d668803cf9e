"""VQA accuracy: its normalisation by cases worked out from the official rules; its agreement."""

from __future__ import annotations

from itertools import combinations
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_mono.metrics import (
    Question,
    TextVQAAccuracy,
    VQAAccuracy,
    normalise_textvqa,
    normalise_vqa,
)
from lightning_mono.metrics.vqa import vqa_accuracy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("The Dog", "dog"),
        ("a cat and an owl", "cat and owl"),
        ("Two", "2"),
        ("none", "0"),
        ("eleven", "eleven"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("couldntve", "couldntve"),  # lacks two apostrophes, which the list does not know
        ("shed", "shed"),  # not she'd
        ("Im", "im"),  # on the list in capitals, which words have lost by then
        ("somebody'd", "somebodyd"),  # the list has it the wrong way round
        ("1,000", "1000"),
        ("1,000 - 2", "1000 2"),  # a comma in a number drops every mark
        ("blue/green", "blue green"),
        ("blue /green", "blue green"),
        ("red,", "red"),
        ("stop,go", "stop go"),
        ("stop, go", "stop go"),
        ("t-shirt", "t shirt"),
        ("50%", "50%"),
        ("3.5", "3.5"),
        ("5.", "5"),
        ("a.b", "ab"),
        ("yes.\n", "yes"),
        ("what?", "what"),
        ("Café", "café"),
        ("man's", "man's"),
    ],
)
def test_vqa_normalisation(text: str, expected: str) -> None:
    assert normalise_vqa(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,000", "1000"),
        ("stop,go", "stopgo"),
        ("man's", "man 's"),
        ("What?No", "whatno"),
        ("The U.S.", "us"),
        ("", ""),
    ],
)
def test_textvqa_normalisation(text: str, expected: str) -> None:
    assert normalise_textvqa(text) == expected


@pytest.mark.parametrize(("agree", "accuracy"), enumerate((0, 0.3, 0.6, 0.9, 1, 1, 1, 1, 1, 1, 1)))
def test_accuracy_by_the_number_of_ten_who_agree(agree: int, accuracy: float) -> None:
    answers = ["red"] * agree + ["blue"] * (10 - agree)
    assert vqa_accuracy("red", answers) == pytest.approx(accuracy)


@given(st.lists(st.sampled_from("abc"), min_size=4, max_size=10))
def test_accuracy_is_the_mean_over_all_subsets_that_leave_one_out(answers: list[str]) -> None:
    kept = combinations(answers, len(answers) - 1)
    assert vqa_accuracy("a", answers) == pytest.approx(
        mean(min(1, others.count("a") / 3) for others in kept)
    )


def accuracy(metric: type[VQAAccuracy | TextVQAAccuracy], said: str, answers: list[str]) -> float:
    built = metric({"q": Question(tuple(answers))})
    built.update([said], ["q"])
    return built.compute()["accuracy"].item()


def test_answers_that_all_agree_are_not_normalised_in_vqav2() -> None:
    assert accuracy(VQAAccuracy, "Red", ["red"] * 10) == 0
    assert accuracy(VQAAccuracy, " red\n", ["red"] * 10) == 1
    assert accuracy(VQAAccuracy, "Red", ["red"] * 9 + ["blue"]) == 1
    assert accuracy(TextVQAAccuracy, "Red", ["red"] * 10) == 1


def test_spellings_of_one_answer_add_up() -> None:
    answers = ["two", "2", "The two", "TWO", *"abcdef"]
    assert accuracy(VQAAccuracy, "a 2", answers) == 1
    assert accuracy(VQAAccuracy, "b", answers) == pytest.approx(0.3)


def test_an_empty_answer_agrees_with_those_of_whom_nothing_is_left() -> None:
    assert accuracy(VQAAccuracy, "", ["the", "a", *"bcdefghi"]) == pytest.approx(0.6)
    assert accuracy(VQAAccuracy, "", list("bcdefghijk")) == 0


def test_a_question_that_hardly_anyone_answered_is_refused() -> None:
    with pytest.raises(ValueError, match=r"question q: .* it has 1"):
        VQAAccuracy({"q": Question(("red",))})
