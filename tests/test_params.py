"""Every parameter is in exactly one group, and a group's name means what it says."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_mono.errors import RecipeError
from lightning_mono.model import ExpertsConfig, MonoModel
from lightning_mono.params import (
    ALIASES,
    GROUPS,
    TEXT_PATH,
    canonical,
    expand,
    grouped,
    layers_below,
)
from lightning_mono.testing import tiny_config

PLACES = [(), (0,), (0, 1)]


def _names(experts: ExpertsConfig, **decoder: bool) -> list[str]:
    with torch.device("meta"):
        model = MonoModel(tiny_config(experts, **decoder))
    return [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("placement", itertools.product(PLACES, PLACES, PLACES))
def test_groups_are_disjoint_and_complete(
    placement: tuple[tuple[int, ...], ...], tied: bool
) -> None:
    ffn, attention, norms = placement
    names = _names(ExpertsConfig(ffn, attention, norms), tied=tied, qkv_bias=tied, out_bias=tied)
    groups = grouped(names)
    members = [name for group in groups.values() for name in group]
    assert sorted(members) == sorted(names)
    assert all(groups.values()), "an empty group was returned"
    assert ("head" in groups) is not tied
    for kind, layers in (("ffn", ffn), ("attention", attention), ("norms", norms)):
        found = groups.get(f"experts.{kind}", [])
        assert {int(name.split(".")[1]) for name in found} == set(layers)
        assert all(".visual." in name for name in found)
    for group in TEXT_PATH & groups.keys():
        assert not any(".visual." in name or "patchifier" in name for name in groups[group])


def test_counts_by_hand() -> None:
    groups = grouped(_names(ExpertsConfig(ffn=(0, 1), attention=(0,), norms=(1,))))
    assert {group: len(members) for group, members in groups.items()} == {
        "patchifier": 9,
        "experts.ffn": 6,
        "experts.attention": 4,
        "experts.norms": 2,
        "ffn": 6,
        "attention": 8,
        "norms": 5,
        "embeddings": 1,
        "head": 1,
    }


@pytest.mark.parametrize("stray", ["visual.weight", "layers.0.adapter.weight", "normal.weight", ""])
def test_a_parameter_without_a_group_is_an_error(stray: str) -> None:
    with pytest.raises(ValueError, match="no group"):
        grouped(["embed.weight", stray])


def test_wrappers_do_not_change_a_group() -> None:
    plain = "layers.3.ffn.visual.up.weight"
    for wrapped in (
        f"module.{plain}",
        f"_orig_mod.{plain}",
        "layers.3._fsdp_wrapped_module.ffn.visual.up.weight",
        "module.layers.3._checkpoint_wrapped_module.ffn._orig_mod.visual.up.weight",
    ):
        assert canonical(wrapped) == plain
        assert grouped([wrapped]) == {"experts.ffn": [wrapped]}


words = st.lists(st.sampled_from([*GROUPS, *ALIASES]), max_size=4)


@given(wanted=words, present=st.sets(st.sampled_from(list(GROUPS))))
def test_expanding_gives_present_groups_in_order_or_refuses(
    wanted: list[str], present: set[str]
) -> None:
    meant = [set(ALIASES.get(word, (word,))) & present for word in wanted]
    if not all(meant):
        with pytest.raises(RecipeError, match="no parameters in"):
            expand(wanted, present)
        return
    ours = expand(wanted, present)
    assert set(ours) == set().union(*meant)
    assert list(ours) == [group for group in GROUPS if group in ours]
    assert expand(ours, present) == ours


def test_unknown_words_name_their_neighbour_and_the_key() -> None:
    with pytest.raises(RecipeError, match=r"stages\.a\.train: .*'patchifer'.*mean 'patchifier'"):
        expand(["patchifer"], GROUPS, "stages.a.train")


def test_depth_counts_from_the_head_down() -> None:
    expected = {
        "head.weight": 0,
        "norm.weight": 0,
        "layers.11.ffn.visual.up.weight": 0,
        "_orig_mod.layers.2.attention_norm.text.weight": 9,
        "layers.0.attention.qkv.text.q.bias": 11,
        "embed.weight": 12,
        "patchifier.positions": 12,
    }
    assert {name: layers_below(name, 12) for name in expected} == expected


def test_a_tied_head_says_what_to_train_instead() -> None:
    present = grouped(_names(ExpertsConfig(), tied=True))
    with pytest.raises(RecipeError, match=r"tied to the embeddings.*'embeddings'"):
        expand(["head"], present)
    with pytest.raises(RecipeError, match=r"model\.experts\.ffn"):
        expand(["experts.ffn"], present)
    assert "head" not in expand(["everything"], present)


def test_aliases_name_groups() -> None:
    for members in ALIASES.values():
        assert set(members) <= set(GROUPS)
    assert set(ALIASES["everything"]) == set(GROUPS)
