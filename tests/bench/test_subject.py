"""What is measured: a recipe's widths in fewer layers, prompts of whole tiles."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lightning_mono.bench.prompts import Prompt
from lightning_mono.bench.subject import Subject, cut, random_model
from lightning_mono.errors import UserError
from lightning_mono.model import ExpertsConfig
from lightning_mono.recipe import shipped_recipes
from lightning_mono.testing import tiny_config

from .conftest import CPU


def test_the_default_is_mono_internvl_2b() -> None:
    subject = Subject.of("mono_internvl_2b/evip", [], 4, CPU, torch.float32)
    whole, part = subject.whole.decoder, subject.config.decoder
    assert (whole.layers, whole.vocab_size) == (24, 92_553)
    assert (part.layers, part.vocab_size) == (4, round(92_553 / 6))
    assert (part.hidden_size, part.ffn_size) == (2048, 8192)
    assert (part.heads, part.kv_heads, part.head_dim) == (16, 8, 128)
    assert subject.config.experts == ExpertsConfig(ffn=(0, 1, 2, 3))
    assert subject.train == ("patchifier", "experts.ffn")
    assert "4 of 24 layers" in subject.title


def test_experts_keep_their_share_of_the_layers() -> None:
    placed = ExpertsConfig(ffn=tuple(range(12)), attention=tuple(range(6, 12)), norms=(0, 1, 2))
    whole = tiny_config(placed, layers=12)
    assert cut(whole, 4).experts == ExpertsConfig(ffn=(0, 1, 2, 3), attention=(2, 3), norms=(0,))
    assert replace(cut(whole, 12), image_context_id=whole.image_context_id) == whole


def test_weights_are_random_and_the_same_each_time(subject: Subject) -> None:
    one, other = (random_model(subject.config, CPU, torch.float32) for _ in range(2))
    for (name, here), there in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(here, there), name
        if here.dim() > 1:
            assert 0.5 < here.std() * here[0].numel() ** 0.5 < 2, name
    assert not torch.equal(one.layers[0].ffn.text.gate.weight, one.layers[0].ffn.visual.gate.weight)


def test_a_prompt_is_text_around_whole_tiles(subject: Subject) -> None:
    prompt = Prompt(tokens=20, text=8, batch=2)
    prompt.check(subject.config)
    ids, pixels = prompt.inputs(subject.config)
    assert ids.shape == (2, 20)
    assert pixels.shape == (2 * 3, 3, 16, 16)
    visual = ids == subject.config.image_context_id
    assert visual.tolist() == [[False] * 2 + [True] * 12 + [False] * 6] * 2


@pytest.mark.parametrize(
    ("tokens", "text", "would_do"),
    [(21, 8, "20 would do"), (8, 8, "12 would do"), (4, 8, "12 would do"), (9, 1, "10 would do")],
)
def test_a_prompt_of_broken_tiles_is_refused(
    tokens: int, text: int, would_do: str, subject: Subject
) -> None:
    with pytest.raises(UserError, match=would_do):
        Prompt(tokens, text).check(subject.config)


def test_a_recipe_must_read_images_and_have_the_layers(recipe: str) -> None:
    with pytest.raises(UserError, match="--layers 3: tiny has 2"):
        Subject.of(recipe, [], 3, CPU, torch.float32)
    assert "micro/language" in shipped_recipes()
    with pytest.raises(UserError, match="reads no images"):
        Subject.of("micro/language", [], 1, CPU, torch.float32)
