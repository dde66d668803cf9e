"""Choosing the next token: greedy, or drawn from what temperature, top-k and top-p leave."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

COLDEST = 1e-5
"""Temperatures below this are greedy: only the most likely id has a chance, and 1 / T overflows."""


@dataclass(frozen=True)
class Sampling:
    """How an id is chosen, step by step in this order, as transformers does it.

    Attributes:
        temperature: 0 takes the most likely id; above, samples from softmax(logits / temperature).
        top_p: samples from the smallest set of ids whose probabilities sum to this.
        top_k: samples from the k most likely ids; 0 means all.
        repetition_penalty: comes first, and for greedy choices too: logits of ids that were seen
            are divided by it where positive, multiplied where negative (CTRL, section 4.1).
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        warm = math.isfinite(self.temperature) and self.temperature >= 0.0
        penal = math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0.0
        if not (warm and penal and 0.0 < self.top_p <= 1.0 and self.top_k >= 0):
            raise ValueError(
                "need a finite temperature >= 0, 0 < top_p <= 1, top_k >= 0 and a finite "
                f"repetition_penalty > 0, got {self}"
            )

    def pick(
        self, logits: Tensor, seen: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        """Chooses an id a row: (batch,) int64.

        Args:
            logits: (batch, vocabulary) fp32.
            seen: ids that the penalty counts, (batch, vocabulary) bool; None means none.
            generator: what sampling draws from; None means PyTorch's global one.
        """
        if self.greedy:
            return self._penalized(logits, seen).argmax(-1)
        return torch.multinomial(self.chances(logits, seen), 1, generator=generator)[:, 0]

    @property
    def greedy(self) -> bool:
        """Nothing is drawn: the most likely id is taken."""
        return self.temperature < COLDEST

    def chances(self, logits: Tensor, seen: Tensor | None) -> Tensor:
        """What :meth:`pick` draws from above temperature 0, (batch, vocabulary); sums to 1."""
        return self._chances(self._penalized(logits, seen))

    def _penalized(self, logits: Tensor, seen: Tensor | None) -> Tensor:
        if seen is None:
            return logits
        penalty = self.repetition_penalty
        return logits.where(~seen, torch.where(logits < 0, logits * penalty, logits / penalty))

    def _chances(self, logits: Tensor) -> Tensor:
        """Probabilities of what is left to choose from, (batch, vocabulary)."""
        logits = logits / self.temperature
        if self.top_k:
            kth = logits.topk(min(self.top_k, logits.shape[-1]), dim=-1).values[:, -1:]
            logits = logits.masked_fill(logits < kth, float("-inf"))
        if self.top_p < 1.0:
            ranked, order = logits.sort(dim=-1, descending=True)
            probabilities = ranked.softmax(-1)
            outside = probabilities.cumsum(-1) - probabilities >= self.top_p
            outside = outside.scatter(-1, order, outside)  # back from ranks to ids
            logits = logits.masked_fill(outside, float("-inf"))
        return logits.softmax(-1)
