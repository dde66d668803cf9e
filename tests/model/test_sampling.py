"""Choosing the next id: transformers' rules in transformers' order, repeatable, and fair."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lightning_mono.model.sampling import Sampling

VOCABULARY = 40

settings_of = st.builds(
    Sampling,
    temperature=st.floats(0.05, 5.0),
    top_p=st.one_of(st.just(1.0), st.floats(0.01, 1.0)),
    top_k=st.integers(0, VOCABULARY + 3),
    repetition_penalty=st.one_of(st.just(1.0), st.floats(0.3, 3.0)),
)


def _made(seed: int, rows: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, ids that each row has seen, and those as a mask."""
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(rows, VOCABULARY, generator=generator)
    ids = torch.randint(VOCABULARY, (rows, 9), generator=generator)
    return logits, ids, torch.zeros_like(logits, dtype=torch.bool).scatter(1, ids, True)


def _theirs(sampling: Sampling, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    steps = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)])
    steps.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    steps.append(TopPLogitsWarper(sampling.top_p))
    return steps(ids, logits).softmax(-1)


@settings(max_examples=150)
@given(sampling=settings_of, seed=st.integers(0, 10_000))
def test_chances_are_those_of_transformers(sampling: Sampling, seed: int) -> None:
    logits, ids, seen = _made(seed)
    before_top_p = _theirs(Sampling(**{**asdict(sampling), "top_p": 1.0}), ids, logits)
    reached = before_top_p.sort(descending=True).values.cumsum(-1)
    assume(sampling.top_p == 1.0 or bool((reached - sampling.top_p).abs().min() > 1e-5))
    ours = sampling._chances(sampling._penalized(logits, seen))
    torch.testing.assert_close(ours, _theirs(sampling, ids, logits), atol=1e-6, rtol=1e-4)


@settings(max_examples=50)
@given(penalty=st.floats(0.1, 10.0), seed=st.integers(0, 10_000))
def test_greedy_choices_are_penalized_as_transformers_does(penalty: float, seed: int) -> None:
    logits, ids, seen = _made(seed)
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits.clone()).argmax(-1)
    assert torch.equal(Sampling(repetition_penalty=penalty).pick(logits, seen, None), theirs)


def test_nothing_seen_is_not_penalized() -> None:
    logits, _, seen = _made(0)
    harsh = Sampling(repetition_penalty=100.0)
    assert torch.equal(harsh.pick(logits, torch.zeros_like(seen), None), logits.argmax(-1))
    assert torch.equal(harsh.pick(logits, None, None), logits.argmax(-1))


@settings(max_examples=50)
@given(temperature=st.floats(0.0, 100.0), seed=st.integers(0, 10_000))
def test_a_choice_of_one_is_greedy(temperature: float, seed: int) -> None:
    logits, _, _ = _made(seed)
    generator = torch.Generator().manual_seed(seed)
    for narrow in ({"top_k": 1}, {"top_p": 1e-9}):
        ours = Sampling(temperature=temperature, **narrow).pick(logits, None, generator)
        assert torch.equal(ours, logits.argmax(-1))


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 5e-324, 1e-5])
def test_the_coldest_temperatures_are_greedy_rather_than_infinite(temperature: float) -> None:
    logits, _, _ = _made(0)
    ours = Sampling(temperature=temperature).pick(1e3 * logits, None, None)
    assert torch.equal(ours, logits.argmax(-1))


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0),
        Sampling(temperature=2.5),
        Sampling(temperature=0.7, top_k=4),
        Sampling(temperature=1.5, top_p=0.8),
    ],
    ids=str,
)
def test_frequencies_follow_the_chances(sampling: Sampling) -> None:
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -3.0])
    draws = 20_000
    ids = sampling.pick(logits.expand(draws, -1), None, torch.Generator().manual_seed(0))
    found = ids.bincount(minlength=len(logits)).double()
    expected = draws * _theirs(sampling, torch.zeros(1, 1, dtype=torch.int64), logits[None])[0]
    possible = expected > 0
    assert found[~possible].sum() == 0
    spread = ((found - expected)[possible] ** 2 / expected[possible]).sum()
    freedom = int(possible.sum()) - 1
    assert spread < freedom + 4 * math.sqrt(2 * freedom)  # chi-square, four standard deviations
    assert spread > 0


def test_a_generator_repeats_and_leaves_the_global_one_alone() -> None:
    logits, _, _ = _made(0, rows=50)
    hot = Sampling(temperature=3.0)

    def draw(seed: int) -> torch.Tensor:
        return hot.pick(logits, None, torch.Generator().manual_seed(seed))

    before = torch.get_rng_state()
    first = draw(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(draw(1), first)
    assert not torch.equal(draw(2), first)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"top_k": -1},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": -2.0},
        {"repetition_penalty": math.nan},
        {"repetition_penalty": math.inf},
    ],
    ids=str,
)
def test_impossible_sampling_is_refused_in_one_line(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"need .*{next(iter(wrong))}=") as caught:
        Sampling(**wrong)
    assert "\n" not in str(caught.value)
