"""Retention's measures: exact where nothing moved, true to their definitions where it did."""

from __future__ import annotations

import math
from itertools import takewhile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_mono.model import ExpertsConfig, MonoModel, PatchifierConfig
from lightning_mono.retention import (
    Continuation,
    Divergence,
    DivergenceSum,
    HeldOut,
    continuations,
    followed,
    kl_nats,
    logits_of,
    read_text,
)
from lightning_mono.testing import randomize, tiny_backbone

PATCHIFIER = PatchifierConfig(image_size=16, patch_size=4, width=6, merge=2)
EVERYWHERE = ExpertsConfig(ffn=(0, 1), attention=(0, 1), norms=(0, 1))
SAID = 6


@pytest.fixture
def untouched() -> MonoModel:
    return MonoModel.graft(tiny_backbone(), patchifier=PATCHIFIER, experts=EVERYWHERE).eval()


@pytest.fixture
def model() -> MonoModel:
    return MonoModel.graft(tiny_backbone(), patchifier=PATCHIFIER, experts=EVERYWHERE).eval()


@pytest.fixture
def text() -> HeldOut:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(4, 200, (9, 40), generator=generator)
    return HeldOut(ids, torch.arange(50, 59))


def drawn(*shape: int, seed: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def distance(reference: MonoModel, model: MonoModel, text: HeldOut) -> Divergence:
    found = read_text(model, text, "cpu", logits_of(reference, text.ids, "cpu"))[1]
    assert found is not None
    return found


def test_what_trains_beside_the_text_path_changes_nothing_at_all(
    untouched: MonoModel, model: MonoModel, text: HeldOut
) -> None:
    randomize(model, seed=1, only=(".visual.", "patchifier."))
    found = distance(untouched, model, text)
    assert found.tokens == 9 * 40
    assert (found.identical, found.max_abs_difference) == (True, 0.0)
    assert (found.kl, found.kl_max, found.agreement) == (0.0, 0.0, 1.0)
    assert read_text(model, text, "cpu")[0] == read_text(untouched, text, "cpu")[0]
    prompts = text.ids[:, :8]
    said = continuations(untouched, prompts, SAID, "cpu")
    lengths = followed(model, prompts, said, "cpu")
    assert Continuation.of(lengths, SAID) == Continuation(1.0, 1.0, 9, SAID)


@pytest.mark.parametrize(
    "weight", ["layers.0.ffn.text.up.weight", "layers.1.attention.qkv.text.q.weight", "norm.weight"]
)
def test_one_text_weight_is_seen(
    untouched: MonoModel, model: MonoModel, text: HeldOut, weight: str
) -> None:
    small = dict(model.named_parameters())[weight].view(-1)
    with torch.no_grad():
        small[0] += 1e-2
    found = distance(untouched, model, text)
    assert not found.identical
    assert 0 < found.kl < found.kl_max < 1e-2
    # KL is of second order in the change: ten times the change is a hundred times as far.
    with torch.no_grad():
        small[0] += 9e-2
    assert distance(untouched, model, text).kl == pytest.approx(100 * found.kl, rel=0.5)


def test_a_large_change_costs_agreement(
    untouched: MonoModel, model: MonoModel, text: HeldOut
) -> None:
    randomize(model, seed=7, only=(".text.",))
    found = distance(untouched, model, text)
    assert found.agreement < 0.5
    expected = torch.stack([a.argmax(-1) for a in logits_of(untouched, text.ids, "cpu")])
    got = torch.stack([a.argmax(-1) for a in logits_of(model, text.ids, "cpu")])
    assert found.agreement == float((expected == got).double().mean())


@given(st.integers(0, 1000), st.floats(1e-3, 30.0), st.floats(0.0, 1.0))
def test_kl_is_the_sum_over_the_vocabulary(seed: int, scale: float, apart: float) -> None:
    reference = drawn(5, 37, seed=seed, scale=scale)
    model = reference + apart * drawn(5, 37, seed=seed + 1, scale=scale)
    expected = []
    for p, q in zip(reference.tolist(), model.tolist(), strict=True):
        total_p, total_q = (math.log(math.fsum(math.exp(x) for x in row)) for row in (p, q))
        pairs = ((a - total_p, b - total_q) for a, b in zip(p, q, strict=True))
        expected.append(math.fsum(math.exp(a) * (a - b) for a, b in pairs))
    found = kl_nats(reference, model)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-13)
    assert (found >= 0).all()
    assert kl_nats(reference, reference).tolist() == [0.0] * 5


def test_kl_does_not_see_what_a_softmax_does_not() -> None:
    reference = drawn(4, 30, seed=0)
    assert kl_nats(reference, reference + 100.0).max() < 1e-9


@given(st.lists(st.integers(1, 90), min_size=1, max_size=6), st.integers(0, 1000))
def test_pieces_of_any_size_give_the_same_distance(lengths: list[int], seed: int) -> None:
    total = sum(lengths)
    reference, model = drawn(total, 11, seed=seed), drawn(total, 11, seed=seed + 1)
    whole, parts, single = DivergenceSum(), DivergenceSum(), []
    whole.add(reference, model)
    for a, b in zip(reference.split(lengths), model.split(lengths), strict=True):
        parts.add(a, b)
        single.append(kl_nats(a, b))
    one, other = whole.compute(), parts.compute()
    assert one is not None
    assert other is not None
    assert one.kl == pytest.approx(other.kl, rel=1e-12)
    assert one.kl == pytest.approx(float(torch.cat(single).mean()), rel=1e-12)
    assert (one.kl_max, one.agreement, one.tokens) == (other.kl_max, other.agreement, total)
    assert (
        one.max_abs_difference == other.max_abs_difference == float((reference - model).abs().max())
    )


def test_nothing_compared_is_no_distance(model: MonoModel, text: HeldOut) -> None:
    assert read_text(model, text, "cpu")[1] is None


@torch.no_grad()
def test_likelihood_counts_every_token_but_the_first_of_a_row(
    model: MonoModel, text: HeldOut
) -> None:
    found, _ = read_text(model, text, "cpu")
    nats = []
    for row in text.ids:
        logs = model(row[None]).logits[0].double().log_softmax(-1)
        nats += [-float(logs[i, row[i + 1]]) for i in range(len(row) - 1)]
    assert found.tokens == len(nats) == text.predicted
    assert found.perplexity == pytest.approx(math.exp(math.fsum(nats) / len(nats)), rel=1e-6)
    bits = math.fsum(nats) / math.log(2) / sum(range(50, 59))
    assert found.bits_per_byte == pytest.approx(bits, rel=1e-6)


def test_continuations_are_what_the_model_generates(untouched: MonoModel, text: HeldOut) -> None:
    prompts = text.ids[:, :8]
    said = continuations(untouched.double(), prompts, SAID, "cpu")
    assert torch.equal(said, untouched.generate(prompts, max_new_tokens=SAID))


@pytest.mark.parametrize("scale", [0.02, 0.1, 0.5])
def test_followed_is_the_common_beginning_of_both_continuations(
    untouched: MonoModel, model: MonoModel, text: HeldOut, scale: float
) -> None:
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".text." in name:
                weight += scale * torch.randn(
                    weight.shape, generator=torch.Generator().manual_seed(5)
                )
    prompts = text.ids[:, :8]
    theirs = continuations(untouched, prompts, SAID, "cpu")
    own = continuations(model, prompts, SAID, "cpu")
    common = [
        len(list(takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=True))))
        for a, b in zip(theirs.tolist(), own.tolist(), strict=True)
    ]
    lengths = followed(model, prompts, theirs, "cpu")
    assert lengths.tolist() == common
    found = Continuation.of(lengths, SAID)
    assert found.followed == pytest.approx(sum(common) / len(common) / SAID)
    assert found.identical == common.count(SAID) / len(common)
    if scale == 0.1:
        assert 0 < found.followed < 1, "all or nothing compares nothing"
