"""How well a model predicts text: perplexity, and bits per byte, which tokenizers do not change."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import Metric

IGNORED = -100
# Sums are of whole numbers of this size, in nats, so that they are the same in any order.
_STEP = 2.0**-24


class TextLikelihood(Metric):
    """Perplexity and bits per byte over any number of texts.

    The negative log-likelihood of each token is rounded to a step of 2^-24 nats and added up in
    64-bit integers: batches and processes in any order give the same sums, up to 10^11 tokens.

    Results: `perplexity` (exp of the nats a token), `bits_per_byte` and `nats_per_token` as
    float64, `tokens` and `bytes` as int64. Without tokens, or bytes, what rests on them is NaN.
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False

    steps: Tensor  # () int64: nats in units of _STEP
    tokens: Tensor  # () int64
    bytes: Tensor  # () int64

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name in ("steps", "tokens", "bytes"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, targets: Tensor, byte_count: int) -> None:
        """Add a batch.

        Args:
            logits: (..., tokens, vocabulary), at the positions that predict.
            targets: (..., tokens) int64, the ids that they should predict; -100: not counted.
            byte_count: UTF-8 bytes of the text that the counted targets stand for.

        Raises:
            ValueError: shapes differ, or a likelihood is not finite.
        """
        if logits.shape[:-1] != targets.shape:
            raise ValueError(
                f"logits {tuple(logits.shape)} do not fit targets {tuple(targets.shape)}"
            )
        nats = cross_entropy(
            logits.float().flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="none"
        )
        if not torch.isfinite(nats).all():
            raise ValueError("the model gives a token of the text no likelihood (NaN or infinity)")
        self.steps += (nats.double() / _STEP).round().to(torch.int64).sum()
        self.tokens += torch.ne(targets, IGNORED).sum()
        self.bytes += byte_count

    def compute(self) -> dict[str, Tensor]:
        """Return the results, see the class."""
        nats = self.steps.double() * _STEP
        return {
            "perplexity": torch.exp(nats / self.tokens),
            "bits_per_byte": nats / math.log(2) / self.bytes,
            "nats_per_token": nats / self.tokens,
            "tokens": self.tokens.clone(),
            "bytes": self.bytes.clone(),
        }
