"""Parameters are counted as they are, and as published."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from lightning_mono.backbones.config import tensor_shapes
from lightning_mono.backbones.known import KNOWN, known
from lightning_mono.model import ExpertsConfig
from lightning_mono.model.published import MONO_INTERNVL_2B
from lightning_mono.plan.weights import numbers_by_group, weights_of
from lightning_mono.testing import tiny_model

# As their model cards say, in millions.
PUBLISHED = {
    "HuggingFaceTB/SmolLM2-135M": 134.5,
    "HuggingFaceTB/SmolLM2-360M": 361.8,
    "HuggingFaceTB/SmolLM2-1.7B": 1711.4,
    "internlm/internlm2-chat-1_8b": 1889.1,
    "internlm/internlm2-7b": 7737.7,
    "Qwen/Qwen2.5-0.5B": 494.0,
    "Qwen/Qwen2.5-1.5B": 1543.7,
    "Qwen/Qwen2.5-3B": 3085.9,
    "Qwen/Qwen2.5-7B": 7615.6,
    "Qwen/Qwen3-0.6B": 596.0,
    "Qwen/Qwen3-1.7B": 1720.6,
    "Qwen/Qwen3-4B": 4022.5,
    "Qwen/Qwen3-8B": 8190.7,
    "meta-llama/Llama-3.2-1B": 1235.8,
    "meta-llama/Llama-3.2-3B": 3212.7,
    "TinyLlama/TinyLlama-1.1B": 1100.0,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_known_shapes_have_the_published_sizes(name: str) -> None:
    shapes = tensor_shapes(KNOWN[name].config).values()
    assert sum(map(math.prod, shapes)) / 1e6 == pytest.approx(PUBLISHED[name], abs=0.06)


def test_a_tuned_model_has_the_shape_of_its_base() -> None:
    assert known("Qwen/Qwen2.5-0.5B-Instruct") is KNOWN["Qwen/Qwen2.5-0.5B"]
    assert known("Qwen/Qwen2.5-0.5") is None
    assert known("org/tiny") is None


def test_the_published_model_is_the_papers() -> None:
    numbers = numbers_by_group(weights_of(MONO_INTERNVL_2B))
    assert sum(numbers.values()) == 3_111_353_344
    assert numbers["experts.ffn"] == 1_207_959_552
    every = tuple(range(24))
    plus = replace(MONO_INTERNVL_2B, experts=ExpertsConfig(ffn=every, attention=every))
    assert numbers_by_group(weights_of(plus))["experts.attention"] == 301_989_888


def test_counts_are_those_of_a_real_model() -> None:
    model = tiny_model()
    counted = {weight.name: weight.numbers for weight in weights_of(model.config)}
    assert counted == {name: p.numel() for name, p in model.named_parameters()}
