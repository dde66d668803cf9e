"""The twin computes the same in transformers, on the same memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lightning_mono.backbones.config import RopeScaling
from lightning_mono.bench import twin
from lightning_mono.bench.prompts import Prompt
from lightning_mono.bench.subject import Subject
from lightning_mono.bench.twin import InTransformers, twin_config, without_transformers
from lightning_mono.model import MonoConfig
from lightning_mono.testing import tiny_config, tiny_decoder, tiny_model

from .conftest import CPU

pytest.importorskip("transformers.models.internvl")


def _twin(**decoder: object) -> MonoConfig:
    config = tiny_config(**decoder)
    subject = Subject("", (), config, config, (), CPU, torch.float32)
    return twin_config(subject)


@pytest.mark.parametrize(
    "decoder",
    [{}, {"qkv_bias": True, "kv_heads": 1}, {"qk_norm": True, "tied": True}],
    ids=["Llama", "Qwen2", "Qwen3"],
)
def test_logits_of_prompt_and_answer_are_the_same(decoder: dict[str, object]) -> None:
    config = _twin(rope_theta=100.0, rms_eps=1e-3, **decoder)
    model = tiny_model(config)
    elsewhere = InTransformers(model)
    ids, pixels = Prompt(tokens=14, text=6, batch=2).inputs(config)
    session, cache = model.session(2), elsewhere.cache()
    ours, theirs = session.read(ids, pixels), elsewhere.read(ids, cache, pixels)
    torch.testing.assert_close(theirs, ours, atol=5e-5, rtol=1e-5)
    for word in (5, 9):
        words = torch.full((2, 1), word)
        ours, theirs = session.read(words), elsewhere.read(words, cache)
        torch.testing.assert_close(theirs, ours, atol=5e-5, rtol=1e-5)


def test_weights_are_not_copied() -> None:
    model = tiny_model(_twin())
    theirs = {p.data_ptr() for p in InTransformers(model).model.parameters()}
    ours = {n: p.data_ptr() for n, p in model.named_parameters()}
    apart = {name for name, at in ours.items() if at not in theirs}
    # A table of positions with the class token's in front is a new one; a part is inside a whole.
    assert apart == {"patchifier.vit.positions", "patchifier.vit.class_position"}


def test_it_is_internvit_in_full_depth_and_a_share_of_it_in_few_layers() -> None:
    def shape(layers: int) -> tuple[int, int, int, int]:
        subject = Subject.of("mono_internvl_2b/evip", [], layers, CPU, torch.float32)
        patchifier = twin_config(subject).patchifier
        assert patchifier is not None
        assert patchifier.vit is not None
        vit = patchifier.vit
        return vit.layers, patchifier.width, vit.heads, vit.mlp_size(patchifier.width)

    assert shape(24) == (24, 1024, 16, 4096)
    assert shape(4) == (4, 1024, 16, 4096)


def test_what_transformers_cannot_run_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_decoder()
    assert without_transformers(config) is None
    assert without_transformers(replace(config, rope_scaling=RopeScaling("dynamic", 2.0))) is None
    for wrong in ({"rope_scaling": RopeScaling("linear", 2.0)}, {"out_bias": True}):
        assert "not set up" in (without_transformers(replace(config, **wrong)) or "")
    monkeypatch.setattr(twin, "find_spec", lambda name: None)
    assert without_transformers(config) == "transformers is not installed"
