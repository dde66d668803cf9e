"""Multiple choice: reading the option chosen, and circular evaluation."""

from __future__ import annotations

from itertools import product

import pytest

from lightning_mono.metrics import (
    Choice,
    ChoiceAccuracy,
    CircularAccuracy,
    extract_choice,
    open_question,
)

OPTIONS = {"A": "cat", "B": "hot dog", "C": "dog", "D": "Two birds"}


@pytest.mark.parametrize(
    ("said", "chosen"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("B. hot dog", "B"),
        ("B: hot dog", "B"),
        ("The answer is C", "C"),
        ("the correct answer is **d**", "D"),
        ("Answer:\nA", "A"),
        ("b", None),
        ("", None),
        ("A or B", None),  # two letters, and no text of an option
        ("A cat is on the mat, and it sleeps there", "A"),  # an article; but "cat" says the same
        ("A bird sits on the mat, and it sleeps there", None),  # the letter stands too early
        ("cat", "A"),
        ("It is a CAT!", "A"),
        ("hot dog", None),  # holds the text of two options
        ("two birds", "D"),
        ("E", None),
        ("Z", None),
        ("I'm sorry, but without the image provided, B", None),
        ("I see a cat " + "and much else " * 9, None),  # over twice as long as all options
    ],
)
def test_the_option_that_a_prediction_chooses(said: str, chosen: str | None) -> None:
    assert extract_choice(said, OPTIONS) == chosen


@pytest.mark.parametrize("letter", OPTIONS)
@pytest.mark.parametrize("form", ["{}", "{}.", "({})", "{})", "Option {}", "Answer: {}", "**{}**"])
def test_usual_forms_of_every_letter(form: str, letter: str) -> None:
    assert extract_choice(form.format(letter), OPTIONS) == letter


def rotations(options: tuple[str, ...], answer: str, group: str, kind: str) -> dict[str, Choice]:
    """A question of MMBench: one row for each rotation of its options."""
    rows = {}
    for shift in range(len(options)):
        turned = options[shift:] + options[:shift]
        letters = dict(zip("ABCD", turned, strict=False))
        right = next(letter for letter, text in letters.items() if text == answer)
        rows[f"{group}/{shift}"] = Choice(letters, right, kind, group)
    return rows


def test_circular_evaluation_wants_every_rotation_right() -> None:
    questions = rotations(("cat", "dog", "owl"), "dog", "1", "what")
    questions |= rotations(("red", "blue"), "red", "2", "colour")
    rights = {name: question.answer for name, question in questions.items()}
    for wrong in [(), ("1/2",), ("1/0", "1/1"), ("2/0",), ("1/1", "2/1")]:
        metric = CircularAccuracy(questions)
        said = ["Z" if name in wrong else right for name, right in rights.items()]
        metric.update(said, list(rights))
        results = metric.compute()
        spoilt = {name[0] for name in wrong}
        assert results["accuracy"] == 1 - len(spoilt) / 2
        assert results["accuracy/what"] == float("1" not in spoilt)
        assert results["accuracy/colour"] == float("2" not in spoilt)
        assert results["vanilla"].item() == pytest.approx(1 - len(wrong) / 5)


def test_always_the_same_letter_is_worth_nothing_in_circular_evaluation() -> None:
    questions = rotations(("cat", "dog", "owl", "ant"), "owl", "1", "what")
    for letter, kind in product("ABCD", (ChoiceAccuracy, CircularAccuracy)):
        metric = kind(questions)
        metric.update([letter] * 4, list(questions))
        assert metric.compute()["accuracy"] == (0.25 if kind is ChoiceAccuracy else 0)


def test_an_open_question_becomes_a_choice() -> None:
    metric = ChoiceAccuracy({"q": open_question("12.5"), "r": open_question("Rome")})
    metric.update(["12.5", "Other Answers"], ["q", "r"])
    assert metric.compute()["accuracy"] == 0.5


def test_questions_of_another_form_are_refused() -> None:
    with pytest.raises(
        ValueError, match="question q: its answer 'E' is not among its options A, B"
    ):
        ChoiceAccuracy({"q": Choice({"A": "x", "B": "y"}, "E")})
    with pytest.raises(ValueError, match="letters A to Z, not 'a'"):
        ChoiceAccuracy({"q": Choice({"a": "x"}, "a")})
    with pytest.raises(ValueError, match="needs the group"):
        CircularAccuracy({"q": Choice({"A": "x"}, "A")})
