"""The official way computes what the official code computed, and what we compute."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lightning_mono.bench import reference
from lightning_mono.bench.names import CONTESTANTS
from lightning_mono.bench.prompts import Prompt
from lightning_mono.bench.subject import Subject
from lightning_mono.bench.training import Training
from lightning_mono.model import ExpertsConfig, MonoConfig, MonoModel
from lightning_mono.testing import IMAGE, tiny_config, tiny_model

GOLDEN = Path(__file__).parents[1] / "golden"
CONFIGS = {
    "EViP": tiny_config(ExpertsConfig(ffn=(0, 1))),
    "every expert": tiny_config(),
    "some": tiny_config(ExpertsConfig(ffn=(1,), attention=(0,))),
    "Qwen2": tiny_config(qkv_bias=True, kv_heads=1),
    "Qwen3, tied": tiny_config(qk_norm=True, tied=True, kv_heads=4),
}


@pytest.mark.parametrize("name", ["plain", "linear-biases-v1-defaults", "dense-qwen2"])
def test_logits_are_the_official_codes(name: str) -> None:
    folder = GOLDEN / name
    inputs, outputs = (load_file(folder / f"{part}.safetensors") for part in ("inputs", "outputs"))
    model = MonoModel.from_pretrained(folder, dtype=torch.float32).eval()
    image_id = json.loads((folder / "meta.json").read_text())["image_context_token_id"]
    model.config = replace(model.config, image_context_id=image_id)
    tiles = inputs["tiles_per_sample"].tolist()
    real = inputs["attention_mask"][0].bool()
    ids, pixels = inputs["input_ids"][:1, real], inputs["pixel_values"][: tiles[0]].float()
    with torch.inference_mode():
        logits, _ = reference.forward(model, ids, pixels)
    torch.testing.assert_close(logits, outputs["logits"][:1, real], atol=4e-5, rtol=0)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_it_reads_and_goes_on_as_a_session_does(config: MonoConfig) -> None:
    model = tiny_model(config)
    ids, pixels = Prompt(tokens=14, text=6, batch=2).inputs(config)
    session = model.session(2)
    ours = session.read(ids, pixels)
    with torch.inference_mode():
        logits, cache = reference.forward(model, ids, pixels)
        torch.testing.assert_close(logits[:, -1], ours, atol=2e-5, rtol=1e-5)
        for _ in range(3):
            words = ours.argmax(-1)[:, None] % IMAGE
            ours = session.read(words)
            logits, cache = reference.forward(model, words, cache=cache)
            torch.testing.assert_close(logits[:, -1], ours, atol=2e-5, rtol=1e-5)
    assert [keys.shape[2] for keys, _ in cache] == [17] * config.decoder.layers


@pytest.mark.parametrize("batch", [1, 3])
def test_loss_and_gradients_are_ours(batch: int, subject: Subject) -> None:
    prompt = Prompt(tokens=20, text=8, batch=batch)
    training = Training(subject)
    line = training.line_up(prompt, CONTESTANTS["train"])
    found = {}
    for name, contestant in line.items():
        contestant.reset()
        loss = contestant.forward()
        loss.backward()
        gradients = {n: p.grad for n, p in training.module.model.named_parameters()}
        found[name] = loss.detach(), {n: g.clone() for n, g in gradients.items() if g is not None}
    ours, our_gradients = found.pop("ours")
    learns = {n for n, p in training.module.model.named_parameters() if p.requires_grad}
    assert set(our_gradients) == learns
    assert any("ffn.visual" in name for name in learns)
    assert all(name.startswith("patchifier.") or "ffn.visual" in name for name in learns)
    assert set(found) == {"ours-all-positions", "reference"}
    for theirs, their_gradients in found.values():
        torch.testing.assert_close(ours, theirs)
        assert set(their_gradients) == learns
        for name, gradient in our_gradients.items():
            other = their_gradients[name]
            torch.testing.assert_close(gradient, other, atol=1e-6, rtol=1e-5, msg=name)
