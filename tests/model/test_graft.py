"""Grafting: the text LLM stays what it was, and what is added starts from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_mono.backbones import add_image_tokens, save_backbone
from lightning_mono.model import ExpertsConfig, MonoModel, PatchifierConfig
from lightning_mono.testing import tiny_backbone

PATCHIFIER = PatchifierConfig(image_size=16, patch_size=4, width=6, merge=2)
EVERYWHERE = ExpertsConfig(ffn=(0, 1), attention=(0, 1), norms=(0, 1))


def _graft(tied: bool = False) -> tuple[MonoModel, dict[str, torch.Tensor]]:
    backbone = tiny_backbone(tied=tied)
    model = MonoModel.graft(backbone, patchifier=PATCHIFIER, experts=EVERYWHERE)
    return model, backbone.tensors


@pytest.mark.parametrize("tied", [False, True])
def test_old_rows_stay_and_new_ones_are_the_mean(tied: bool) -> None:
    model, tensors = _graft(tied)
    old = tensors["embed.weight"].shape[0]
    assert ("head.weight" in dict(model.named_parameters())) is not tied
    for name in ("embed.weight", *(() if tied else ("head.weight",))):
        weight = model.get_parameter(name)
        assert weight.shape[0] == old + 9
        assert torch.equal(weight[:old], tensors[name])
        torch.testing.assert_close(weight[old:], tensors[name].mean(0).expand(9, -1))


def test_every_weight_is_the_backbones_and_experts_are_copies_with_their_own_storage() -> None:
    model, tensors = _graft()
    homes: dict[int, str] = {}
    for name, parameter in model.named_parameters():
        assert parameter.device.type == "cpu", f"{name} was left without a value"
        home = parameter.untyped_storage().data_ptr()
        assert home not in homes, f"{name} shares storage with {homes[home]}"
        homes[home] = name
        if name.startswith("layers.") or name == "norm.weight":
            assert torch.equal(parameter, tensors[name.replace(".visual.", ".text.")])
    before = tensors["layers.0.ffn.text.up.weight"].clone()
    with torch.no_grad():
        model.layers[0].ffn.visual.up.weight.zero_()
    assert torch.equal(model.layers[0].ffn.text.up.weight, before)
    assert torch.equal(tensors["layers.0.ffn.text.up.weight"], before)


def test_visual_tokens_enter_as_large_as_words() -> None:
    torch.manual_seed(0)
    model, _ = _graft()
    noise = torch.randn(16, 3, 16, 16)
    with torch.no_grad():
        ratio = model.patchifier(noise).std() / model.embed.weight.std()
    assert 0.5 < float(ratio) < 2


def test_without_additions_it_is_the_backbone() -> None:
    backbone = tiny_backbone()
    model = MonoModel.graft(backbone)
    assert model.config.decoder == backbone.config
    state = model.state_dict()
    assert state.keys() == backbone.tensors.keys()
    assert all(torch.equal(state[name], backbone.tensors[name]) for name in state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_model_takes_the_backbones_dtype(dtype: torch.dtype) -> None:
    backbone = tiny_backbone()
    backbone.tensors = {name: value.to(dtype) for name, value in backbone.tensors.items()}
    model = MonoModel.graft(backbone, patchifier=PATCHIFIER, experts=EVERYWHERE)
    assert {p.dtype for p in model.parameters()} == {dtype}


def test_a_missing_weight_is_named() -> None:
    backbone = tiny_backbone()
    del backbone.tensors["layers.1.ffn.text.gate.weight"]
    with pytest.raises(ValueError, match=r"tiny.*layers\.1\.ffn\.text\.gate\.weight"):
        MonoModel.graft(backbone)


def test_a_weight_of_another_shape_is_named_with_both_shapes() -> None:
    backbone = tiny_backbone()
    backbone.tensors["layers.0.ffn.text.up.weight"] = torch.zeros(3, 16)
    with pytest.raises(ValueError, match=r"layers\.0\.ffn\.text\.up.*\(3, 16\).*\(24, 16\)"):
        MonoModel.graft(backbone)


def test_spare_rows_of_a_padded_vocabulary_become_the_mean_too() -> None:
    backbone = tiny_backbone()
    known = backbone.tokenizer.get_vocab_size()
    backbone.config = replace(backbone.config, vocab_size=known + 20)
    for name in ("embed.weight", "head.weight"):
        backbone.tensors[name] = torch.randn(known + 20, 16)
    model = MonoModel.graft(backbone, patchifier=PATCHIFIER)
    assert model.config.decoder.vocab_size == known + 20
    for name in ("embed.weight", "head.weight"):
        weight, old = model.get_parameter(name), backbone.tensors[name]
        assert torch.equal(weight[:known], old[:known])
        torch.testing.assert_close(weight[known : known + 9], old[:known].mean(0).expand(9, -1))
        assert torch.equal(weight[known + 9 :], old[known + 9 :])


def test_a_folder_and_words_will_do(tmp_path: Path) -> None:
    save_backbone(tmp_path, tiny_backbone())
    model = MonoModel.graft(
        tmp_path,
        patchifier={"image_size": 28, "width": 4},
        experts={"ffn": "all", "attention": "last:1", "norms": "none"},
    )
    assert model.config.patchifier == PatchifierConfig(28, 14, 4, merge=2)
    assert model.config.experts == ExpertsConfig(ffn=(0, 1), attention=(1,))
    tokenizer = tiny_backbone().tokenizer
    assert model.config.image_context_id == add_image_tokens(tokenizer).context
    assert MonoModel.graft(tmp_path).config.patchifier is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"experts": {"ffn": "some"}}, "'some' is no placement"),
        ({"experts": {"ffns": "all"}}, "ffns"),
        ({"patchifier": {"image_size": 100}}, "no multiple"),
        ({"patchifier": {"depth": 3}}, "depth"),
    ],
)
def test_words_that_mean_nothing_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        MonoModel.graft(tiny_backbone(), **settings)
