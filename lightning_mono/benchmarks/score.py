"""Answers to scores, beside what can be had without a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_mono.benchmarks.benchmark import Benchmark, Item
from lightning_mono.errors import DataError
from lightning_mono.metrics import (
    METRICS,
    AnswerMetric,
    Captions,
    ChoiceAccuracy,
    CIDErD,
    ExactMatch,
    HallusionScore,
    Judge,
    MathVistaAccuracy,
    MMEScore,
    Question,
    RelaxedAccuracy,
    TextVQAAccuracy,
    VQAAccuracy,
    matches,
    normalise,
)

Metric = AnswerMetric[Any]

MAJORITY, KIND_MAJORITY = "most frequent answer", "most frequent of its kind"
_SHORT = (
    *(ExactMatch, VQAAccuracy, TextVQAAccuracy, RelaxedAccuracy),
    *(ChoiceAccuracy, MMEScore, HallusionScore),
)
"""Metrics of questions with few possible answers, one of which may be given to all of them."""


@dataclass(frozen=True)
class Scored:
    """What came of asking a benchmark.

    Attributes:
        benchmark: what was asked.
        answers: by id.
        results: of the metric, and `exact` for captions: the share that is a reference.
        quoted: the headline as papers print it.
        scores: id to the score of each of the metric's columns.
        baselines: name to the headline, as papers print it, of answers that took no looking.
    """

    benchmark: Benchmark
    answers: Mapping[str, str]
    results: Mapping[str, float]
    quoted: float
    scores: Mapping[str, Mapping[str, float]]
    baselines: Mapping[str, float] = field(default_factory=dict)

    def right(self, item: Item) -> bool:
        """Whether an answer is right: for the most part, where a score knows parts."""
        if isinstance(item.question, Captions):
            return any(matches(self.answers[item.id], said) for said in item.question.references)
        first = next(iter(self.scores[item.id].values()))
        return (first >= 0.5) == bool(self.benchmark.scoring.metric.higher_is_better)


def make_metric(benchmark: Benchmark, judge: Judge | None = None) -> Metric:
    """Make the metric of a benchmark.

    Args:
        judge: grades answers where the scoring needs it; reads them where MathVista's rules cannot.

    Raises:
        DataError: it needs a judge and has none, or its questions do not go together.
    """
    scoring = benchmark.scoring
    options: dict[str, Any] = {"sync_on_compute": False}  # all answers are at hand, on one process
    if scoring.judged:
        if judge is None:
            raise DataError(
                f"{benchmark.name} is scored by a judge: give --judge a model or a file of "
                "verdicts (docs/benchmarks.md)"
            )
        options["judge"] = judge
    elif judge is not None and scoring.metric is MathVistaAccuracy:
        options["reader"] = judge
    try:
        return scoring.metric({item.id: item.question for item in benchmark.items}, **options)
    except ValueError as error:
        raise DataError(f"{benchmark.origin}: {error}") from error


def score(
    benchmark: Benchmark,
    answers: Mapping[str, str],
    metric: Metric,
    others: Mapping[str, Mapping[str, str]] | None = None,
) -> Scored:
    """Score the answers.

    Args:
        benchmark: what was asked.
        answers: by id.
        metric: of `make_metric`, without answers yet; it keeps these.
        others: name to what another model said, which is scored beside.
    """
    ids = list(answers)
    metric.update([answers[name] for name in ids], ids)
    values = {name: value.item() for name, value in metric.compute().items()}
    if isinstance(metric, CIDErD):
        values["exact"] = _exact(benchmark, answers)
    rows = (metric.scores / metric.answered[:, None]).tolist()
    scores = {
        name: dict(zip(metric.columns, rows[row], strict=True)) for name, row in metric.rows.items()
    }
    further = {**_guesses(benchmark), **(others or {})}
    baselines = {name: _quoted(benchmark, said) for name, said in further.items()}
    quoted = benchmark.scoring.scale * values[benchmark.scoring.headline]
    return Scored(benchmark, answers, values, quoted, scores, baselines)


def _quoted(benchmark: Benchmark, answers: Mapping[str, str]) -> float:
    metric = make_metric(benchmark)
    metric.update(list(answers.values()), list(answers))
    return benchmark.scoring.quoted(metric.compute())


def _exact(benchmark: Benchmark, answers: Mapping[str, str]) -> float:
    """The share of captions that are one of the references."""
    references = {
        item.id: Question(item.question.references)
        for item in benchmark.items
        if isinstance(item.question, Captions)
    }
    exact = METRICS["exact_match"].metric(references, sync_on_compute=False)
    exact.update(list(answers.values()), list(answers))
    return float(exact.compute()["accuracy"])


def _guesses(benchmark: Benchmark) -> dict[str, dict[str, str]]:
    """The answers of who always says what is right most often, overall or for a kind."""
    if not issubclass(benchmark.scoring.metric, _SHORT):
        return {}
    tallies: dict[str, Counter[str]] = {}
    for item in benchmark.items:
        tallies.setdefault(item.question.kind, Counter())[_single(item.question)] += 1
    usual = {kind: tally.most_common(1)[0][0] for kind, tally in tallies.items()}
    overall = sum(tallies.values(), Counter[str]()).most_common(1)[0][0]
    guesses = {MAJORITY: {item.id: overall for item in benchmark.items}}
    if len(usual) > 1:
        guesses[KIND_MAJORITY] = {item.id: usual[item.question.kind] for item in benchmark.items}
    return guesses


def _single(question: Any) -> str:
    """The right answer, or that of several which most people gave."""
    if isinstance(question, Question):
        return Counter(map(normalise, question.answers)).most_common(1)[0][0]
    answer: str = question.answer
    return answer
