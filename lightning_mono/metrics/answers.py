"""What all metrics of answered questions share: which are answered, and how scores add up.

A benchmark is a set of questions that every process knows. A metric holds one row a question, and
a process fills in the rows of the questions that it asked. Adding the rows of all processes gives
the table that one process would have filled in, to the last bit, because the others hold zeros
there; whatever is computed from the table (means, groups, pairs) is then the same too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torchmetrics import Metric


class HasKind(Protocol):
    """A question that may belong to a kind, such as a subtask, which gets a mean of its own."""

    @property
    def kind(self) -> str:
        """Name of the kind; empty: of none."""


@dataclass(frozen=True)
class Question:
    """A question with one or more right answers."""

    answers: tuple[str, ...]
    kind: str = ""


Q = TypeVar("Q", bound=HasKind)


class AnswerMetric(Metric, Generic[Q]):
    """Scores of the questions of a benchmark, and their means.

    A question that is answered more than once (a distributed sampler repeats some, to give all
    processes as many) counts once, with the mean of its scores.

    Args:
        questions: all questions of the benchmark, by id, the same on every process.
        options: of every torchmetrics metric, e.g. `sync_on_compute`.

    Raises:
        ValueError: there are no questions, or one is not of the form that the metric needs.
    """

    columns: ClassVar[tuple[str, ...]] = ("accuracy",)
    """Names of the scores that an answer gets."""

    higher_is_better = True
    is_differentiable = False
    full_state_update = False

    scores: Tensor  # (questions, columns) float64, sums over the answers to the question
    answered: Tensor  # (questions,) int64

    def __init__(self, questions: Mapping[str, Q], **options: Any) -> None:
        super().__init__(**options)
        if not questions:
            raise ValueError("questions: a benchmark needs at least one")
        for name, question in questions.items():
            try:
                self.check(question)
            except ValueError as error:
                raise ValueError(f"question {name}: {error}") from error
        self.questions = dict(questions)
        self.rows = {name: row for row, name in enumerate(self.questions)}
        shape = (len(self.questions), len(self.columns))
        self.add_state("scores", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("answered", torch.zeros(shape[0], dtype=torch.int64), dist_reduce_fx="sum")

    def check(self, question: Q) -> None:
        """Raise ValueError where a question is not of the form that the metric needs."""

    def measure(self, prediction: str, question: Q) -> tuple[float, ...]:
        """Score one answer: a number for each of `columns`."""
        raise NotImplementedError

    def measure_all(
        self, predictions: Sequence[str], ids: Sequence[str]
    ) -> list[tuple[float, ...]]:
        """Score a batch of answers."""
        pairs = zip(predictions, ids, strict=True)
        return [self.measure(said, self.questions[name]) for said, name in pairs]

    def update(self, predictions: Sequence[str], ids: Sequence[str]) -> None:
        """Score a batch: `predictions[i]` was given to question `ids[i]`.

        Raises:
            ValueError: an id is not of this benchmark, or the lists are of unequal length.
        """
        unknown = [name for name in ids if name not in self.rows]
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} is not the id of one of the {len(self.rows)} questions"
            )
        if not ids:
            return
        device = self.scores.device
        scores = self.measure_all(predictions, ids)
        rows = torch.tensor([self.rows[name] for name in ids], device=device)
        values = torch.tensor(scores, dtype=torch.float64, device=device)
        self.scores.index_add_(0, rows, values.reshape(len(ids), len(self.columns)))
        self.answered.index_add_(0, rows, torch.ones_like(rows))

    def compute(self) -> dict[str, Tensor]:
        """Return float64 results by name, and the int64 number of `questions`.

        Raises:
            ValueError: a question is unanswered. Means over a part would pass for those of all.
        """
        missing = torch.eq(self.answered, 0).nonzero().flatten().tolist()
        if missing:
            name = list(self.questions)[missing[0]]
            raise ValueError(
                f"{len(missing)} of {len(self.rows)} questions are unanswered, the first is "
                f"{name!r}; answer them all, or build the metric of those that are asked"
            )
        means = (self.scores / self.answered[:, None]).T.tolist()
        results = self.summarise(dict(zip(self.columns, means, strict=True)))
        tensors = {
            name: torch.tensor(value, dtype=torch.float64) for name, value in results.items()
        }
        return {**tensors, "questions": torch.tensor(len(self.rows))}

    def summarise(self, scores: dict[str, list[float]]) -> dict[str, float]:
        """Turn the scores of each column, in the order of `questions`, into results.

        By default each column's mean over all questions, and `<column>/<kind>` over each kind's.
        """
        kinds = [question.kind for question in self.questions.values()]
        results = {}
        for column, values in scores.items():
            results[column] = mean(values)
            by_kind = grouped(values, kinds)
            results |= {f"{column}/{kind}": mean(part) for kind, part in by_kind.items() if kind}
        return results


K = TypeVar("K")


def grouped(values: Sequence[float], keys: Sequence[K]) -> dict[K, list[float]]:
    """Gather values by their key, in the order in which the keys first come."""
    groups: dict[K, list[float]] = {}
    for value, key in zip(values, keys, strict=True):
        groups.setdefault(key, []).append(value)
    return groups


def mean(values: Sequence[float]) -> float:
    """Return the mean, rounded once, whatever the order."""
    return math.fsum(values) / len(values)


def share_all_right(values: Sequence[float], keys: Sequence[K]) -> float:
    """Return the share of groups, each the values of one key, in which every value is 1."""
    return mean([float(min(group) == 1) for group in grouped(values, keys).values()])
