"""Measures of the field's benchmarks, as torchmetrics: right on one process and over many."""

from lightning_mono.metrics.accuracy import ExactMatch, matches, normalise
from lightning_mono.metrics.anls import ANLS, EditSimilarity
from lightning_mono.metrics.answers import AnswerMetric, Question
from lightning_mono.metrics.averages import MULTIMODAL, QUESTIONS, average
from lightning_mono.metrics.boxes import BoxAccuracy, BoxQuestion
from lightning_mono.metrics.choices import (
    Choice,
    ChoiceAccuracy,
    CircularAccuracy,
    extract_choice,
    open_question,
)
from lightning_mono.metrics.cider import Captions, CIDErD
from lightning_mono.metrics.hallusion import HallusionQuestion, HallusionScore
from lightning_mono.metrics.judge import Judge, ModelJudge, RecordedJudge, Request, write_verdicts
from lightning_mono.metrics.likelihood import TextLikelihood
from lightning_mono.metrics.mathvista import MathProblem, MathVistaAccuracy
from lightning_mono.metrics.mis import MISRates, PairQuestion
from lightning_mono.metrics.mme import MMEScore, YesNo
from lightning_mono.metrics.mmvet import MMVetScore, OpenQuestion
from lightning_mono.metrics.ocrbench import OCRBenchScore
from lightning_mono.metrics.ptb import ptb_words
from lightning_mono.metrics.relaxed import RelaxedAccuracy
from lightning_mono.metrics.table import METRICS, Scoring
from lightning_mono.metrics.vqa import (
    TextVQAAccuracy,
    VQAAccuracy,
    normalise_textvqa,
    normalise_vqa,
)

__all__ = [
    "ANLS",
    "METRICS",
    "MULTIMODAL",
    "QUESTIONS",
    "AnswerMetric",
    "BoxAccuracy",
    "BoxQuestion",
    "CIDErD",
    "Captions",
    "Choice",
    "ChoiceAccuracy",
    "CircularAccuracy",
    "EditSimilarity",
    "ExactMatch",
    "HallusionQuestion",
    "HallusionScore",
    "Judge",
    "MISRates",
    "MMEScore",
    "MMVetScore",
    "MathProblem",
    "MathVistaAccuracy",
    "ModelJudge",
    "OCRBenchScore",
    "OpenQuestion",
    "PairQuestion",
    "Question",
    "RecordedJudge",
    "RelaxedAccuracy",
    "Request",
    "Scoring",
    "TextLikelihood",
    "TextVQAAccuracy",
    "VQAAccuracy",
    "YesNo",
    "average",
    "extract_choice",
    "matches",
    "normalise",
    "normalise_textvqa",
    "normalise_vqa",
    "open_question",
    "ptb_words",
    "write_verdicts",
]
