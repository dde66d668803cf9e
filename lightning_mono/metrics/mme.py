"""MME: yes or no, asked twice of each image; accuracy and accuracy+ a subtask, and their sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lightning_mono.metrics.answers import AnswerMetric, grouped, mean, share_all_right

PERCEPTION = (
    *("existence", "count", "position", "color", "posters"),
    *("celebrity", "scene", "landmark", "artwork", "OCR"),
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")


@dataclass(frozen=True)
class YesNo:
    """A question about an image of a subtask; each image has two."""

    image: str
    answer: Literal["yes", "no"]
    kind: str  # the subtask, one of PERCEPTION or COGNITION


def read_yes_no(prediction: str) -> Literal["yes", "no", "other"]:
    """Look for yes, then no, in the first four letters, as MME's `calculation.py` does.

    So "not sure" is a no. lmms-eval strips the text and drops full stops first; VLMEvalKit looks
    at all words, see `hallusion.read_yes_no`.
    """
    start = prediction.lower()[:4]
    if "yes" in start:
        return "yes"
    return "no" if "no" in start else "other"


class MMEScore(AnswerMetric[YesNo]):
    """MME's points, as its `calculation.py` counts them (Fu et al. 2023, section 2.3).

    A subtask gets 100 times its accuracy plus 100 times accuracy+, the share of images with both
    questions right. Results: `accuracy/<subtask>`, `accuracy+/<subtask>` (shares),
    `score/<subtask>` (up to 200), `perception` (2000), `cognition` (800) and `total`, which
    papers quote (2800). Of subtasks that are not among the questions there is nothing; sums are
    over those that are.
    """

    def __init__(self, questions: Mapping[str, YesNo], **options: Any) -> None:
        super().__init__(questions, **options)
        images = [(question.kind, question.image) for question in questions.values()]
        for image, both in grouped([0.0] * len(images), images).items():
            if len(both) != 2:
                raise ValueError(
                    f"MME asks two questions of each image; {image[1]!r} of {image[0]} has "
                    f"{len(both)}"
                )

    def check(self, question: YesNo) -> None:
        """Refuse unknown subtasks and answers."""
        if question.kind not in (*PERCEPTION, *COGNITION):
            subtasks = ", ".join((*PERCEPTION, *COGNITION))
            raise ValueError(f"{question.kind!r} is not a subtask of MME: {subtasks}")
        if question.answer not in ("yes", "no"):
            raise ValueError(f"its answer is yes or no, not {question.answer!r}")

    def measure(self, prediction: str, question: YesNo) -> tuple[float, ...]:
        """Return 1 for the right answer, else 0."""
        return (float(read_yes_no(prediction) == question.answer),)

    def summarise(self, scores: dict[str, list[float]]) -> dict[str, float]:
        """Return points by subtask and their sums."""
        rows = list(zip(scores["accuracy"], self.questions.values(), strict=True))
        results = dict.fromkeys(("total", "perception", "cognition"), 0.0)
        for subtask in (*PERCEPTION, *COGNITION):
            of_it = [
                (value, question.image) for value, question in rows if question.kind == subtask
            ]
            if not of_it:
                continue
            values, images = zip(*of_it, strict=True)
            accuracy, plus = mean(values), share_all_right(values, images)
            points = 100 * accuracy + 100 * plus
            results |= {f"accuracy/{subtask}": accuracy, f"accuracy+/{subtask}": plus}
            results[f"score/{subtask}"] = points
            results["perception" if subtask in PERCEPTION else "cognition"] += points
        results["total"] = results["perception"] + results["cognition"]
        return results
