"""MM-Vet: open answers graded from 0 to 1 by a judge, overall and by the capabilities they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_mono.metrics.answers import AnswerMetric, grouped, mean
from lightning_mono.metrics.judge import Judge, Request

CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")

# Ours, in the sense of the official one, whose worked examples a judge should see for figures to
# compare with: have answers judged by MM-Vet's own script and replay them with RecordedJudge.
PROMPT = """\
How right is the answer to the question, given the reference? Grade it 0.0 (wrong), 0.1, 0.2, ... \
or 1.0 (right). Where the reference joins parts with <AND>, an answer is right if it holds all of \
them, and gets a share of the grade for some; with <OR>, it is right if it holds any one.
Question: {question}
Reference: {answer}
Answer: {prediction}
Reply with the grade alone.
Grade:"""


@dataclass(frozen=True)
class OpenQuestion:
    """A question with a reference, in MM-Vet's notation with <AND> and <OR>."""

    question: str
    answer: str
    capabilities: tuple[str, ...]  # some of CAPABILITIES

    @property
    def kind(self) -> str:
        """The combination of capabilities, in MM-Vet's terms a capability integration."""
        return "_".join(name for name in CAPABILITIES if name in self.capabilities)


def read_grade(verdict: str) -> float | None:
    """Read the first word as a grade between 0 and 1; None: it is none."""
    try:
        grade = float(verdict.split()[0])
    except (IndexError, ValueError):
        return None
    return grade if 0 <= grade <= 1 else None


class MMVetScore(AnswerMetric[OpenQuestion]):
    """MM-Vet's total and its scores by capability, between 0 and 1 (Yu et al. 2023, section 3.3).

    Results: `total`, `total/<capability>` (a question counts in each of its capabilities),
    `combination/<capabilities>`, and `unjudged`, the share of verdicts that are no grade. These
    count as 0, as in `mm-vet_evaluator.py` after five tries.

    Args:
        questions: of MM-Vet.
        judge: grades the answers.
    """

    columns = ("total", "unjudged")

    def __init__(self, questions: Mapping[str, OpenQuestion], judge: Judge, **options: Any) -> None:
        super().__init__(questions, **options)
        self.judge = judge

    def check(self, question: OpenQuestion) -> None:
        """Refuse a question without capabilities, or with unknown ones."""
        unknown = set(question.capabilities) - set(CAPABILITIES)
        if unknown or not question.capabilities:
            raise ValueError(
                f"its capabilities {question.capabilities} are not some of "
                f"{', '.join(CAPABILITIES)}"
            )

    def measure_all(
        self, predictions: Sequence[str], ids: Sequence[str]
    ) -> list[tuple[float, ...]]:
        """Have a batch of answers graded."""
        requests = []
        for said, name in zip(predictions, ids, strict=True):
            asked = self.questions[name]
            answer = asked.answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
            prompt = PROMPT.format(question=asked.question, answer=answer, prediction=said)
            requests.append(Request(name, said, prompt))
        grades = [read_grade(verdict) for verdict in self.judge.verdicts(requests)]
        return [(grade or 0.0, float(grade is None)) for grade in grades]

    def summarise(self, scores: dict[str, list[float]]) -> dict[str, float]:
        """Return means overall, by capability and by combination."""
        graded = list(zip(scores["total"], self.questions.values(), strict=True))
        combinations = [question.kind for question in self.questions.values()]
        results = {"total": mean(scores["total"])}
        for name in CAPABILITIES:
            part = [grade for grade, question in graded if name in question.capabilities]
            if part:
                results[f"total/{name}"] = mean(part)
        for name, part in grouped(scores["total"], combinations).items():
            results[f"combination/{name}"] = mean(part)
        return {**results, "unjudged": mean(scores["unjudged"])}
