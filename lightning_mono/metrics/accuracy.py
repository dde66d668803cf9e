"""Exact match of short answers (GQA, ScienceQA), overall and by kind of question."""

from __future__ import annotations

from lightning_mono.metrics.answers import AnswerMetric, Question


def normalise(text: str) -> str:
    """Bring an answer to the form in which answers are compared.

    Lower case, white space collapsed, one closing full stop dropped. Nothing else: "two" and "2",
    or "a circle" and "circle", stay different answers.
    """
    return " ".join(text.lower().split()).removesuffix(".").rstrip()


def matches(prediction: str, answer: str) -> bool:
    """Say whether a prediction is the answer, after `normalise`."""
    return normalise(prediction) == normalise(answer)


class ExactMatch(AnswerMetric[Question]):
    """Share of predictions that are one of the right answers, after `normalise`.

    GQA's own `eval.py` compares strings as they are; LLaVA's conversion for it lowers case and
    strips full stops, which is this rule; InternVL lowers case and strips blanks only; lmms-eval
    drops all punctuation. Results: `accuracy` and `accuracy/<kind>`, between 0 and 1.
    """

    def check(self, question: Question) -> None:
        """Refuse a question without an answer."""
        if not question.answers:
            raise ValueError("it has no answer")

    def measure(self, prediction: str, question: Question) -> tuple[float, ...]:
        """Return 1 for a match, else 0."""
        return (float(any(matches(prediction, answer) for answer in question.answers)),)
