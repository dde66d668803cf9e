"""Which metric a benchmark is scored with, and which of its results papers quote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightning_mono.metrics.accuracy import ExactMatch
from lightning_mono.metrics.anls import ANLS, EditSimilarity
from lightning_mono.metrics.answers import AnswerMetric, HasKind, Question
from lightning_mono.metrics.boxes import BoxAccuracy, BoxQuestion
from lightning_mono.metrics.choices import Choice, ChoiceAccuracy, CircularAccuracy
from lightning_mono.metrics.cider import Captions, CIDErD
from lightning_mono.metrics.hallusion import HallusionQuestion, HallusionScore
from lightning_mono.metrics.mathvista import MathProblem, MathVistaAccuracy
from lightning_mono.metrics.mis import MISRates, PairQuestion
from lightning_mono.metrics.mme import MMEScore, YesNo
from lightning_mono.metrics.mmvet import MMVetScore, OpenQuestion
from lightning_mono.metrics.ocrbench import OCRBenchScore
from lightning_mono.metrics.relaxed import RelaxedAccuracy
from lightning_mono.metrics.vqa import TextVQAAccuracy, VQAAccuracy


@dataclass(frozen=True)
class Scoring:
    """How a benchmark is scored.

    `metric(questions)`, or with a judge `metric(questions, judge=...)`, is ready for
    `update(predictions, ids)`.
    """

    metric: type[AnswerMetric[Any]]
    question: type[HasKind]  # of the values of `questions`
    headline: str  # the result that papers quote
    scale: float = 100.0  # they quote it times this
    judged: bool = False  # the metric needs a judge

    def quoted(self, results: Mapping[str, Tensor]) -> float:
        """Return the headline of `metric.compute()` as papers print it."""
        return self.scale * float(results[self.headline])


_CHOICE = Scoring(ChoiceAccuracy, Choice, "accuracy")
_CIRCULAR = Scoring(CircularAccuracy, Choice, "accuracy")
_EXACT = Scoring(ExactMatch, Question, "accuracy")
_VQA = Scoring(VQAAccuracy, Question, "accuracy")
_ANLS = Scoring(ANLS, Question, "anls")
_CIDER = Scoring(CIDErD, Captions, "cider")
_BOX = Scoring(BoxAccuracy, BoxQuestion, "accuracy")

METRICS: Mapping[str, Scoring] = {
    "ai2d": _CHOICE,
    "ccbench": _CIRCULAR,
    "chartqa": Scoring(RelaxedAccuracy, Question, "accuracy"),
    "coco": _CIDER,
    "docvqa": _ANLS,
    "exact_match": _EXACT,
    "flickr30k": _CIDER,
    "gqa": _EXACT,
    "hallusionbench": Scoring(HallusionScore, HallusionQuestion, "score"),
    "infovqa": _ANLS,
    "mathvista": Scoring(MathVistaAccuracy, MathProblem, "accuracy"),
    "mis": Scoring(MISRates, PairQuestion, "ASR", judged=True),
    "mmbench": _CIRCULAR,
    "mme": Scoring(MMEScore, YesNo, "total", scale=1.0),
    "mmmu": _CHOICE,
    "mmvet": Scoring(MMVetScore, OpenQuestion, "total", judged=True),
    "nocaps": _CIDER,
    "ocrbench": Scoring(OCRBenchScore, Question, "total", scale=1.0),
    "okvqa": _VQA,
    "reading": Scoring(EditSimilarity, Question, "similarity"),
    "refcoco": _BOX,
    "scienceqa": _CHOICE,  # an exact match of the option's letter
    "seed": _CHOICE,
    "textvqa": Scoring(TextVQAAccuracy, Question, "accuracy"),
    "vqav2": _VQA,
}
"""Benchmarks by name."""
