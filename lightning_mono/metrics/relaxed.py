"""Relaxed accuracy of charts (ChartQA): a number may be 5 % off."""

from __future__ import annotations

from lightning_mono.metrics.answers import AnswerMetric, Question

TOLERANCE = 0.05


def as_number(text: str) -> float | None:
    """Read a number as Python's `float` does, per cent as hundredths; None: it is not one."""
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def relaxed_match(prediction: str, answer: str) -> bool:
    """Say whether a prediction is within 5 % of a number, or else the same text but for case.

    `relaxed_correctness` in `metrics.py` of google-research/pix2struct, after ChartQA's section
    5.1. Details that follow from it: "12%" is 0.12, and so is not 12; "1,000" is no number but a
    text, and matches "1,000" alone; a right answer of 0 is compared as text, since nothing is
    within 5 % of it.
    """
    said, right = as_number(prediction), as_number(answer)
    if said is not None and right:
        return abs(said - right) / abs(right) <= TOLERANCE
    return prediction.lower() == answer.lower()


class RelaxedAccuracy(AnswerMetric[Question]):
    """Share of relaxed matches with any right answer; ChartQA's halves are kinds of question.

    The benchmark's figure is the mean over all its questions, half of them human and half
    augmented. Blanks around a prediction are dropped, as VLMEvalKit does. InternVL's script hands
    the two texts over in the other order, so that there the 5 % are those of the prediction.
    """

    def check(self, question: Question) -> None:
        """Refuse a question without an answer."""
        if not question.answers:
            raise ValueError("it has no answer")

    def measure(self, prediction: str, question: Question) -> tuple[float, ...]:
        """Return 1 for a relaxed match, else 0."""
        said = prediction.strip()
        return (float(any(relaxed_match(said, answer) for answer in question.answers)),)
