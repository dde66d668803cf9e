"""OCRBench: a point for each answer that contains a right text, of 1000."""

from __future__ import annotations

import math

from lightning_mono.metrics.answers import AnswerMetric, Question, grouped

FORMULAS = "Handwritten Mathematical Expression Recognition"
RECOGNITION = (
    "Regular Text Recognition",
    "Irregular Text Recognition",
    "Artistic Text Recognition",
    "Handwriting Recognition",
    "Digit String Recognition",
    "Non-Semantic Text Recognition",
)
OTHERS = ("Scene Text-centric VQA", "Doc-oriented VQA", "Key Information Extraction", FORMULAS)


def contains(prediction: str, answer: str, *, formula: bool) -> bool:
    """Say whether a prediction contains a right text, as `example.py` of OCRBench does.

    Case does not count, and a line end is a blank; in formulas case counts and blanks do not. An
    empty right text would be in everything and is refused by the metric. (lmms-eval, in addition,
    makes plain letters of full-width ones.)
    """
    said, right = (text.strip().replace("\n", " ") for text in (prediction, answer))
    if formula:
        return right.replace(" ", "") in said.replace(" ", "")
    return right.lower() in said.lower()


class OCRBenchScore(AnswerMetric[Question]):
    """OCRBench's points (Liu et al. 2023): `total` of 1000, `Text Recognition`, and each kind.

    The kind of a question is its `type` in `OCRBench.json`.
    """

    columns = ("points",)

    def check(self, question: Question) -> None:
        """Refuse unknown kinds and empty answers."""
        if question.kind not in (*RECOGNITION, *OTHERS):
            kinds = ", ".join((*RECOGNITION, *OTHERS))
            raise ValueError(f"{question.kind!r} is not a kind of OCRBench: {kinds}")
        if not question.answers or not all(answer.strip() for answer in question.answers):
            raise ValueError("it has no answer, or an empty one")

    def measure(self, prediction: str, question: Question) -> tuple[float, ...]:
        """Return a point where the prediction contains a right text."""
        formula = question.kind == FORMULAS
        right = any(contains(prediction, text, formula=formula) for text in question.answers)
        return (float(right),)

    def summarise(self, scores: dict[str, list[float]]) -> dict[str, float]:
        """Return sums of points; a kind that is not among the questions has 0."""
        kinds = [question.kind for question in self.questions.values()]
        points = {kind: math.fsum(v) for kind, v in grouped(scores["points"], kinds).items()}
        by_kind = {kind: points.get(kind, 0.0) for kind in (*RECOGNITION, *OTHERS)}
        recognition = math.fsum(by_kind[kind] for kind in RECOGNITION)
        return {"total": math.fsum(scores["points"]), "Text Recognition": recognition, **by_kind}
