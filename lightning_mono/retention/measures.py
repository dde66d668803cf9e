"""How far a language model is from the one that it was: pure functions of two models and text.

All of them read one row at a time, and nothing larger than one row's logits is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_mono.metrics import TextLikelihood
from lightning_mono.retention.text import HeldOut

POSITIONS = 32
"""Tokens that are compared at once, in float64: four tensors of (32, vocabulary)."""

PROMPTS = 8
"""Prompts that are continued at once."""


class LanguageModel(Protocol):
    """What is asked of a model: int64 ids (batch, tokens) in, ``.logits`` of each token out."""

    def __call__(self, input_ids: Tensor) -> Any: ...


@dataclass(frozen=True)
class Likelihood:
    """How well a model predicts text.

    Attributes:
        perplexity: exp of the mean nats a token.
        bits_per_byte: bits that the text takes, over its UTF-8 bytes; tokenizers do not change it.
        tokens: that were predicted.
    """

    perplexity: float
    bits_per_byte: float
    tokens: int


@dataclass(frozen=True)
class Divergence:
    """How far a model's next-token distributions are from the reference's, on the same text.

    Attributes:
        kl: mean over tokens of KL(reference || model), nats.
        kl_max: the largest of a single token, nats.
        agreement: share of tokens behind which both hold the same next token likeliest.
        identical: every logit is the same to the last bit.
        max_abs_difference: largest difference between logits.
        tokens: positions that were compared.
    """

    kl: float
    kl_max: float
    agreement: float
    identical: bool
    max_abs_difference: float
    tokens: int


@dataclass(frozen=True)
class Continuation:
    """How far a model says what the reference says, both choosing the likeliest token each time.

    Attributes:
        followed: share of the reference's tokens before the first that differs. What comes after
            has another context in either model, so that comparing it tells nothing.
        identical: share of prompts that are continued alike to the end.
        prompts: how many.
        tokens: the length of a continuation.
    """

    followed: float
    identical: float
    prompts: int
    tokens: int

    @classmethod
    def of(cls, lengths: Tensor, tokens: int) -> Continuation:
        """From what :func:`followed` gives for continuations of ``tokens`` tokens."""
        return cls(
            float(lengths.double().mean() / tokens),
            float(torch.eq(lengths, tokens).double().mean()),
            len(lengths),
            tokens,
        )


@torch.no_grad()
def logits_of(model: LanguageModel, ids: Tensor, device: torch.device | str) -> Iterator[Tensor]:
    """Logits of each row, read on its own: (tokens, vocabulary) fp32, where the model is."""
    for row in ids.to(device):
        yield model(row[None]).logits[0].float()


def read_text(
    model: LanguageModel,
    text: HeldOut,
    device: torch.device | str,
    reference: Iterable[Tensor] = (),
) -> tuple[Likelihood, Divergence | None]:
    """Reads text once, and compares what is predicted with a reference.

    Args:
        model: on ``device``.
        reference: another model's logits of the first rows, or of all, (tokens, vocabulary) each.

    Returns:
        How well the text is predicted, and the distance to the reference on its rows; None where
        it has none.

    Raises:
        ValueError: a likelihood is not finite.
    """
    likelihood, divergence = TextLikelihood(), DivergenceSum()
    rows = iter(reference)
    count = zip(text.ids, text.bytes.tolist(), logits_of(model, text.ids, device), strict=True)
    for ids, byte_count, logits in count:
        likelihood.update(logits[:-1].cpu(), ids[1:], byte_count)
        before = next(rows, None)
        if before is not None:
            divergence.add(before.to(logits.device), logits)
    found = likelihood.compute()
    return (
        Likelihood(float(found["perplexity"]), float(found["bits_per_byte"]), int(found["tokens"])),
        divergence.compute(),
    )


class DivergenceSum:
    """Adds up the distance between two models' logits, some rows at a time."""

    def __init__(self) -> None:
        self._nats = self._largest = self._moved = 0.0
        self._agreed = self._tokens = 0
        self._identical = True

    def add(self, reference: Tensor, model: Tensor) -> None:
        """Compares logits, (tokens, vocabulary) each."""
        both = zip(reference.split(POSITIONS), model.split(POSITIONS), strict=True)
        for before, after in both:
            nats = kl_nats(before, after)
            self._nats += float(nats.sum())
            self._largest = max(self._largest, float(nats.max()))
            self._agreed += int(torch.eq(before.argmax(-1), after.argmax(-1)).sum())
            self._tokens += len(nats)
            self._moved = max(self._moved, float((after - before).abs().max()))
            self._identical = self._identical and torch.equal(before, after)

    def compute(self) -> Divergence | None:
        """What was found; None where nothing was compared."""
        if not self._tokens:
            return None
        return Divergence(
            kl=self._nats / self._tokens,
            kl_max=self._largest,
            agreement=self._agreed / self._tokens,
            identical=self._identical,
            max_abs_difference=self._moved,
            tokens=self._tokens,
        )


def kl_nats(reference: Tensor, model: Tensor) -> Tensor:
    """KL(reference || model) = sum_v p(v) (log p(v) - log q(v)) of logits, in nats.

    In float64: in fp32 what a frozen text path leaves, 0, and what a little training leaves, 1e-6,
    could not be told apart. Equal logits give 0, to the last bit.

    Args:
        reference, model: logits (..., vocabulary) of p and q.

    Returns:
        (...) float64.
    """
    before = reference.double().log_softmax(-1)
    after = model.double().log_softmax(-1)
    return (before.exp() * (before - after)).sum(-1).clamp(min=0)  # rounding may fall below


@torch.no_grad()
def continuations(
    model: LanguageModel, prompts: Tensor, tokens: int, device: torch.device | str
) -> Tensor:
    """What a model says to prompts, choosing the likeliest token each time.

    Without a cache, and in rows of their final length from the start, so that each token comes out
    of the same computation in which :func:`followed` looks at it: not one bit may differ there.

    Args:
        model: on ``device``.
        prompts: (prompts, width) int64.
        tokens: to say; no token ends a continuation.

    Returns:
        (prompts, tokens) int64, on the CPU.
    """
    width = prompts.shape[1]
    said = []
    for some in prompts.to(device).split(PROMPTS):
        ids = torch.cat([some, some.new_zeros(len(some), tokens)], dim=1)
        for column in range(width, width + tokens):
            ids[:, column] = model(ids).logits[:, column - 1].argmax(-1)
        said.append(ids[:, width:].cpu())
    return torch.cat(said)


@torch.no_grad()
def followed(
    model: LanguageModel, prompts: Tensor, said: Tensor, device: torch.device | str
) -> Tensor:
    """How many tokens of each continuation a model would say too, before the first other one.

    Until its first other token a model has read what the reference has read, so one pass over the
    reference's continuations tells.

    Args:
        model: on ``device``.
        prompts: (prompts, width) int64.
        said: (prompts, tokens) int64, what :func:`continuations` gives for the reference.

    Returns:
        (prompts,) int64, on the CPU.
    """
    width = prompts.shape[1]
    lengths = []
    for some, theirs in zip(prompts.split(PROMPTS), said.split(PROMPTS), strict=True):
        ids = torch.cat([some, theirs], dim=1).to(device)
        own = model(ids).logits[:, width - 1 : -1].argmax(-1).cpu()
        lengths.append(torch.eq(own, theirs).int().cumprod(1).sum(1))
    return torch.cat(lengths)
