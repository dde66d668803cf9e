"""Distances and angles are those of hand-worked cases, and of what was done to the weights."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_mono.drift import KINDS, between, by_group, from_text
from lightning_mono.model import ExpertsConfig, MonoModel, PatchifierConfig
from lightning_mono.testing import randomize, tiny_backbone, tiny_config, tiny_model


def test_between_is_what_one_works_out_by_hand() -> None:
    moved = between([(torch.tensor([3.0]), torch.tensor([0.0])), (torch.ones(2), torch.ones(2))])
    assert moved.distance == pytest.approx(3 / math.sqrt(2))
    assert moved.cosine == pytest.approx(2 / math.sqrt(11 * 2))


@given(st.floats(0.125, 8.0), st.integers(0, 100))
def test_a_longer_copy_points_the_same_way(scale: float, seed: int) -> None:
    weights = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed))
    moved = between([(scale * weights, weights)])
    assert moved.cosine == pytest.approx(1.0, abs=1e-6)
    assert moved.distance == pytest.approx(abs(scale - 1), abs=1e-6)


def test_the_least_change_is_seen_and_none_is_exactly_none() -> None:
    weights = torch.randn(100)
    bit = weights.clone()
    bit[7] = torch.nextafter(bit[7], torch.tensor(math.inf))
    assert between([(weights, weights.clone())]).distance == 0
    assert between([(bit, weights)]).distance > 0


def test_every_expert_of_a_fresh_model_is_a_copy_and_all_kinds_have_names() -> None:
    model = MonoModel.graft(
        tiny_backbone(qk_norm=True, qkv_bias=True),
        patchifier=PatchifierConfig(16, 4, 6),
        experts=ExpertsConfig(ffn=(0, 1), attention=(1,), norms=(0,)),
    )
    found = from_text(model.state_dict())
    assert all((moved.cosine, moved.distance) == (1, 0) for moved in found.values())
    ffn = {"ffn.gate", "ffn.up", "ffn.down"}
    norms = {"attention_norm", "ffn_norm"}
    assert {kind for layer, kind in found if layer == 0} == ffn | norms
    assert {kind for layer, kind in found if layer == 1} == set(KINDS) - norms


def test_only_what_was_changed_has_moved() -> None:
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    randomize(model, seed=9, only=["layers.1.ffn.visual.up"])
    now = model.state_dict()
    assert {group for group, its in by_group(now, before).items() if its.distance} == {
        "experts.ffn"
    }
    less, more = from_text(before), from_text(now)
    assert {place for place in more if more[place] != less[place]} == {(1, "ffn.up")}


def test_experts_are_compared_with_their_origin_where_text_weights_have_trained() -> None:
    model = tiny_model(tiny_config())
    origin = {name: value.clone() for name, value in model.state_dict().items()}
    for name, value in model.state_dict().items():
        if ".visual." in name:
            value.copy_(origin[name.replace(".visual.", ".text.")])
    randomize(model, seed=5, only=[".text."])
    assert all(its.distance == 0 for its in from_text(model.state_dict(), origin).values())
    assert all(its.distance > 0 for its in from_text(model.state_dict()).values())
    with pytest.raises(ValueError, match=r"layers\.0\..*: the origin has no"):
        from_text(model.state_dict(), {})
