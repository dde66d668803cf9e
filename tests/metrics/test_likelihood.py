"""Perplexity and bits per byte, against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.text import Perplexity

from lightning_mono.metrics import TextLikelihood


def drawn(rows: int = 7, tokens: int = 11, words: int = 13) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(rows, tokens, words, generator=generator)
    targets = torch.randint(words, (rows, tokens), generator=generator)
    targets[torch.rand(rows, tokens, generator=generator) < 0.3] = -100
    return logits, targets


def test_perplexity_is_that_of_torchmetrics() -> None:
    logits, targets = drawn()
    metric, reference = TextLikelihood(), Perplexity(ignore_index=-100)
    metric.update(logits, targets, 100)
    reference.update(logits, targets)
    expected = reference.compute().item()
    assert metric.compute()["perplexity"].item() == pytest.approx(expected, rel=1e-5)
    assert metric.compute()["tokens"] == (targets != -100).sum()


@pytest.mark.parametrize("words", [2, 256, 1000])
def test_a_model_that_knows_nothing(words: int) -> None:
    """Each token costs log2 of the vocabulary; of two bytes each, half of that a byte."""
    metric = TextLikelihood()
    metric.update(torch.zeros(5, words), torch.arange(5) % words, byte_count=10)
    results = metric.compute()
    assert results["perplexity"].item() == pytest.approx(words, rel=1e-6)
    assert results["bits_per_byte"].item() == pytest.approx(math.log2(words) / 2, rel=1e-6)
    assert results["nats_per_token"].item() == pytest.approx(math.log(words), rel=1e-6)


@given(st.permutations(range(7)), st.integers(1, 7))
def test_order_and_batches_leave_no_trace(order: list[int], size: int) -> None:
    logits, targets = drawn()
    whole, parts = TextLikelihood(), TextLikelihood()
    whole.update(logits, targets, 70)
    for start in range(0, 7, size):
        rows = order[start : start + size]
        parts.update(logits[rows], targets[rows], 10 * len(rows))
    expected = whole.compute()
    assert all(torch.equal(value, expected[name]) for name, value in parts.compute().items())


def test_nothing_to_predict_has_no_perplexity_and_bad_input_is_refused() -> None:
    metric = TextLikelihood()
    metric.update(torch.zeros(1, 3, 4), torch.full((1, 3), -100), 0)
    assert metric.compute()["perplexity"].isnan()
    with pytest.raises(ValueError, match=r"logits \(1, 3, 4\) do not fit targets \(1, 2\)"):
        metric.update(torch.zeros(1, 3, 4), torch.zeros(1, 2, dtype=torch.int64), 2)
    with pytest.raises(ValueError, match="no likelihood"):
        metric.update(torch.full((1, 2, 4), torch.nan), torch.zeros(1, 2, dtype=torch.int64), 2)
