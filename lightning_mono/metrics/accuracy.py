"""Exact match of short answers, overall and by kind of question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


def normalise(text: str) -> str:
    """Bring an answer to the form in which answers are compared.

    Lower case, white space collapsed, one closing full stop dropped. Nothing else: "two" and "2",
    or "a circle" and "circle", stay different answers.
    """
    return " ".join(text.lower().split()).removesuffix(".").rstrip()


def matches(prediction: str, answer: str) -> bool:
    """Say whether a prediction is the answer, after `normalise`."""
    return normalise(prediction) == normalise(answer)


class ExactMatch(Metric):
    """Share of predictions that are the answer, overall and for each kind of question.

    The states are counts that add up over ranks, so ranks may hold different numbers of questions
    and the result is still that of one process that saw them all.

    Args:
        kinds: the kinds of question that may come, each once. Their order is that of the states.
        options: of every torchmetrics metric, e.g. `sync_on_compute`.

    Raises:
        ValueError: from `update`, for a kind that is not among `kinds` or lists of unequal length.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False

    correct: Tensor  # (kinds,) int64
    total: Tensor  # (kinds,) int64

    def __init__(self, kinds: Sequence[str], **options: Any) -> None:
        super().__init__(**options)
        if len(set(kinds)) != len(kinds) or not kinds:
            raise ValueError(f"kinds: need at least one, each once, got {list(kinds)}")
        self.kinds = tuple(kinds)
        zeros = torch.zeros(len(kinds), dtype=torch.int64)
        self.add_state("correct", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("total", zeros.clone(), dist_reduce_fx="sum")

    def update(
        self, predictions: Sequence[str], answers: Sequence[str], kinds: Sequence[str]
    ) -> None:
        """Count one batch: `predictions[i]` was given where `answers[i]` is right."""
        unknown = sorted(set(kinds) - set(self.kinds))
        if unknown:
            raise ValueError(f"kind {unknown[0]!r} is not one of {', '.join(self.kinds)}")
        for prediction, answer, kind in zip(predictions, answers, kinds, strict=True):
            row = self.kinds.index(kind)
            self.correct[row] += matches(prediction, answer)
            self.total[row] += 1

    def compute(self) -> dict[str, Tensor]:
        """Return float32 shares `accuracy`, `accuracy/<kind>` and int64 counts `questions...`.

        A share of no questions is NaN.
        """
        result = {
            "accuracy": self.correct.sum() / self.total.sum(),
            "questions": self.total.sum(),
        }
        for row, kind in enumerate(self.kinds):
            result[f"accuracy/{kind}"] = self.correct[row] / self.total[row]
            result[f"questions/{kind}"] = self.total[row]
        return result
