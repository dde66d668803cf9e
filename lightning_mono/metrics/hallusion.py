"""HallusionBench: right by question (aAcc), by figure (fAcc), by question over figures (qAcc)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lightning_mono.metrics.answers import AnswerMetric, mean, share_all_right
from lightning_mono.metrics.vqa import normalise_words


@dataclass(frozen=True)
class HallusionQuestion:
    """A yes-or-no question, by the fields of `HallusionBench.json`."""

    answer: Literal["yes", "no"]
    category: str  # VD or VS: visual dependent, visual supplement
    subcategory: str
    set_id: str
    figure_id: str  # "0" in VS: asked without a figure
    question_id: str

    @property
    def kind(self) -> str:
        """The subcategory within its category, which share one name (ocr)."""
        return f"{self.category}/{self.subcategory}"

    @property
    def figure(self) -> tuple[str, ...]:
        """All questions about one figure have this in common."""
        return (self.category, self.subcategory, self.set_id, self.figure_id)

    @property
    def pair(self) -> tuple[str, ...]:
        """One question asked of a figure and its edited versions has this in common."""
        return (self.category, self.subcategory, self.set_id, self.question_id)


def read_yes_no(prediction: str) -> Literal["yes", "no", "other"]:
    """Read yes or no where exactly one of the two is among the words, as VLMEvalKit does."""
    words = normalise_words(prediction)
    if ("yes" in words) == ("no" in words):
        return "other"
    return "yes" if "yes" in words else "no"


class HallusionScore(AnswerMetric[HallusionQuestion]):
    """HallusionBench's three accuracies and their mean, which papers quote, between 0 and 1.

    Guan et al. 2023, section 4. Two ways of running it exist. VLMEvalKit, from which the InternVL
    papers take their figure, asks the 951 questions that have a figure and reads yes or no from the
    text. The authors' script asks all 1129, has GPT-4 judge, lets "unclear" pass where there is no
    figure, and leaves those questions out of fAcc only. This is the first, and goes over to the
    second in what it leaves out of fAcc when questions without a figure are among those it is
    given; there, an answer that is neither yes nor no stands for "unclear".

    Results: `score`, `aAcc`, `fAcc`, `qAcc`, and `aAcc/<category>/<subcategory>`.
    """

    columns = ("aAcc",)

    def check(self, question: HallusionQuestion) -> None:
        """Refuse unknown answers and categories."""
        if question.answer not in ("yes", "no"):
            raise ValueError(f"its answer is yes or no, not {question.answer!r}")
        if question.category not in ("VD", "VS"):
            raise ValueError(f"its category is VD or VS, not {question.category!r}")

    def measure(self, prediction: str, question: HallusionQuestion) -> tuple[float, ...]:
        """Return 1 for the right answer, else 0."""
        said = read_yes_no(prediction)
        return (float(said == question.answer or (said == "other" and _without_figure(question))),)

    def summarise(self, scores: dict[str, list[float]]) -> dict[str, float]:
        """Return the three accuracies and their mean."""
        values, questions = scores["aAcc"], list(self.questions.values())
        seen = [
            (value, question.figure)
            for value, question in zip(values, questions, strict=True)
            if not _without_figure(question)
        ]
        by_question = super().summarise(scores)
        by_figure = share_all_right(*zip(*seen, strict=True)) if seen else float("nan")
        by_pair = share_all_right(values, [question.pair for question in questions])
        score = mean([by_question["aAcc"], by_figure, by_pair])
        return {"score": score, "fAcc": by_figure, "qAcc": by_pair, **by_question}


def _without_figure(question: HallusionQuestion) -> bool:
    return question.category == "VS" and question.figure_id == "0"
