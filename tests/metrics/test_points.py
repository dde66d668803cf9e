"""Benchmarks that count in points or groups: MME, HallusionBench, OCRBench, boxes, averages."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_mono.metrics import (
    MULTIMODAL,
    QUESTIONS,
    BoxAccuracy,
    BoxQuestion,
    HallusionQuestion,
    HallusionScore,
    MMEScore,
    OCRBenchScore,
    Question,
    YesNo,
    average,
    hallusion,
    mme,
)
from lightning_mono.metrics.boxes import Box, overlap, read_box
from lightning_mono.metrics.ocrbench import FORMULAS, OTHERS, RECOGNITION


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("Yes", "yes"),
        ("No, it is not", "no"),
        ("not sure", "no"),
        (" Yes.", "yes"),
        ("Is it? Yes", "other"),
        ("", "other"),
        ("I do not", "other"),
        ("eyes", "yes"),
    ],
)
def test_mme_reads_the_first_four_letters(said: str, read: str) -> None:
    assert mme.read_yes_no(said) == read


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("Yes", "yes"),
        ("Is it? Yes.", "yes"),
        ("no/never", "no"),
        ("not sure", "other"),
        ("yes and no", "other"),
        ("", "other"),
    ],
)
def test_hallusionbench_reads_words(said: str, read: str) -> None:
    assert hallusion.read_yes_no(said) == read


def test_mme_points_of_subtasks_and_their_sums() -> None:
    questions = {
        f"{subtask}/{image}/{answer}": YesNo(f"{image}.jpg", answer, subtask)
        for subtask in ("count", "OCR", "code_reasoning")
        for image in range(2)
        for answer in ("yes", "no")
    }
    metric = MMEScore(questions)
    wrong = {"count/0/yes", "OCR/0/yes", "OCR/1/no"}
    said = [
        {"yes": "No", "no": "Yes"}[question.answer] if name in wrong else f"{question.answer}."
        for name, question in questions.items()
    ]
    metric.update(said, list(questions))
    results = metric.compute()
    # count: 3 of 4 questions, 1 of 2 images; OCR: 2 of 4, none; code: all
    assert results["score/count"] == 75 + 50
    assert results["score/OCR"] == 50
    assert results["score/code_reasoning"] == 200
    assert (results["perception"], results["cognition"], results["total"]) == (175, 200, 375)
    assert results["accuracy+/count"] == 0.5


def test_full_marks_of_mme_are_2800() -> None:
    questions = {
        f"{subtask}/{answer}": YesNo("1.jpg", answer, subtask)
        for subtask in (*mme.PERCEPTION, *mme.COGNITION)
        for answer in ("yes", "no")
    }
    metric = MMEScore(questions)
    metric.update([question.answer for question in questions.values()], list(questions))
    results = metric.compute()
    assert (results["perception"], results["cognition"]) == (2000, 800)
    assert results["total"] == MULTIMODAL["mme"]


def test_mme_wants_two_questions_an_image() -> None:
    with pytest.raises(ValueError, match=r"'1.jpg' of count has 1"):
        MMEScore({"q": YesNo("1.jpg", "yes", "count")})
    with pytest.raises(ValueError, match="question q: 'counting' is not a subtask of MME"):
        MMEScore({"q": YesNo("1.jpg", "yes", "counting")})


def hallusion_questions() -> dict[str, HallusionQuestion]:
    """Two figures of one set with two questions each, and one asked without a figure."""
    rows = {
        f"VD/{figure}/{number}": HallusionQuestion("yes", "VD", "ocr", "0", figure, number)
        for figure in "01"
        for number in "01"
    }
    return {**rows, "VS/0/0": HallusionQuestion("no", "VS", "ocr", "0", "0", "0")}


@pytest.mark.parametrize(
    ("wrong", "by_question", "by_figure", "by_pair"),
    [
        ((), 1, 1, 1),
        (("VD/1/0",), 4 / 5, 1 / 2, 2 / 3),
        (("VD/0/0", "VD/1/0"), 3 / 5, 0, 2 / 3),
        (("VD/1/0", "VD/1/1"), 3 / 5, 1 / 2, 1 / 3),
        (("VS/0/0",), 4 / 5, 1, 2 / 3),  # without a figure: in no figure's accuracy
    ],
)
def test_hallusionbench(
    wrong: tuple[str, ...], by_question: float, by_figure: float, by_pair: float
) -> None:
    questions = hallusion_questions()
    metric = HallusionScore(questions)
    said = [
        {"yes": "No", "no": "Yes"}[question.answer] if name in wrong else question.answer
        for name, question in questions.items()
    ]
    metric.update(said, list(questions))
    results = metric.compute()
    assert results["aAcc"].item() == pytest.approx(by_question)
    assert results["fAcc"].item() == pytest.approx(by_figure)
    assert results["qAcc"].item() == pytest.approx(by_pair)
    assert results["score"].item() == pytest.approx((by_question + by_figure + by_pair) / 3)


def test_not_knowing_passes_only_without_a_figure() -> None:
    questions = hallusion_questions()
    metric = HallusionScore(questions)
    metric.update(["I cannot tell"] * 5, list(questions))
    assert metric.compute()["aAcc"].item() == pytest.approx(1 / 5)


def test_ocrbench_counts_answers_that_contain_a_right_text() -> None:
    questions = {kind: Question(("A\nb", "x y"), kind) for kind in (*RECOGNITION, *OTHERS)}
    cases = {
        " it says a B ": 10 - 1,  # case does not count, but in formulas it does
        "A b": 10,
        "Ab": 1,  # blanks do not count in formulas alone
        "": 0,
    }
    for said, points in cases.items():
        metric = OCRBenchScore(questions)
        metric.update([said] * 10, list(questions))
        results = metric.compute()
        assert results["total"] == points
        assert results["Text Recognition"] == sum(results[kind] for kind in RECOGNITION)
        assert results["total"] == results["Text Recognition"] + sum(results[k] for k in OTHERS)
    with pytest.raises(ValueError, match="or an empty one"):
        OCRBenchScore({"q": Question(("",), FORMULAS)})
    with pytest.raises(ValueError, match="'OCR' is not a kind"):
        OCRBenchScore({"q": Question(("a",), "OCR")})


@pytest.mark.parametrize(
    ("said", "box"),
    [
        ("<box>[[0, 250, 500, 1000]]</box>", (0, 50, 50, 200)),
        ("at [0.0,0.25,0.5,1.0].", (0, 50, 50, 200)),
        ("[1, 2, 3]", None),
        ("", None),
        ("[a, b, c, d] [[10,20,30,40]]", (1, 4, 3, 8)),
    ],
)
def test_boxes_are_read_in_thousandths_or_shares(said: str, box: Box | None) -> None:
    read = read_box(said, width=100, height=200)
    assert read == (None if box is None else pytest.approx(box))


_side = st.floats(0, 100)
boxes = st.tuples(_side, _side, _side, _side).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]) + 1, max(b[1], b[3]) + 1)
)


@given(boxes, boxes, st.floats(0.1, 10))
def test_overlap_is_symmetric_a_share_and_free_of_scale(one: Box, other: Box, scale: float) -> None:
    iou = overlap(one, other)
    assert 0 <= iou <= 1 + 1e-9
    assert overlap(one, one) == pytest.approx(1)
    assert overlap(other, one) == pytest.approx(iou)
    larger = [tuple(side * scale for side in box) for box in (one, other)]
    assert overlap(*larger) == pytest.approx(iou, abs=1e-9)  # type: ignore[arg-type]


def test_boxes_that_overlap_by_half_are_right() -> None:
    question = BoxQuestion((0, 0, 100, 100), 100, 100, "val")
    said = {
        "[[0,0,1000,1000]]": 1,
        "[[0,0,500,1000]]": 0.5,
        "[[0,0,499,1000]]": 0.499,
        "[[1000,1000,0,0]]": 0,
        "nowhere": 0,
    }
    metric = BoxAccuracy(dict.fromkeys(said, question))
    metric.update(list(said), list(said))
    results = metric.compute()
    assert results["accuracy"].item() == results["accuracy/val"].item() == pytest.approx(2 / 5)
    assert results["iou"].item() == pytest.approx(math.fsum(said.values()) / 5)
    with pytest.raises(ValueError, match="has no area"):
        BoxAccuracy({"q": BoxQuestion((5, 5, 5, 9), 10, 10)})


# Rows of Table 2 of the Mono-InternVL paper (arXiv 2410.08202).
TABLE_2 = {
    "Mono-InternVL-2B": (
        *(65.5, 40.1, 33.7, 1875, 45.7, 67.4, 767, 34.8, 66.3),
        *(72.6, 93.6, 59.5, 80.0, 68.6, 73.7, 43.0),
    ),
    "InternVL-1.5-2B": (
        *(70.9, 39.3, 34.6, 1902, 41.1, 69.8, 654, 37.5, 63.5),
        *(70.5, 84.9, 61.6, 85.0, 69.8, 74.8, 55.4),
    ),
}
COLUMNS = (
    *[
        "mmbench",
        "mmvet",
        "mmmu",
        "mme",
        "mathvista",
        "seed",
        "ocrbench",
        "hallusionbench",
        "ccbench",
    ],
    *["textvqa", "scienceqa", "gqa", "docvqa", "ai2d", "chartqa", "infovqa"],
)


@pytest.mark.parametrize(
    ("model", "multimodal", "questions"),
    [("Mono-InternVL-2B", 55.2, 70.1), ("InternVL-1.5-2B", 54.4, 71.7)],
)
def test_averages_of_the_paper(model: str, multimodal: float, questions: float) -> None:
    scores = dict(zip(COLUMNS, TABLE_2[model], strict=True))
    assert round(average(scores, MULTIMODAL), 1) == multimodal
    assert round(average(scores, QUESTIONS), 1) == questions


def test_an_average_wants_every_score_within_its_full_marks() -> None:
    scores = dict(zip(COLUMNS, TABLE_2["Mono-InternVL-2B"], strict=True))
    with pytest.raises(ValueError, match="a score of gqa, too"):
        average({name: s for name, s in scores.items() if name != "gqa"}, QUESTIONS)
    with pytest.raises(
        ValueError, match=r"mmbench: 655 is not between 0 and its full marks of 100"
    ):
        average({**scores, "mmbench": 655}, MULTIMODAL)
