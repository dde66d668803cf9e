"""A text LLM and a monolithic model in folders, for recipes to begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_mono.inference import Assistant, make_renderer
from lightning_mono.model import ExpertsConfig, MonoModel, PatchifierConfig
from lightning_mono.testing import (
    randomize,
    tiny_backbone,
)

from .rounding import WIDE


@pytest.fixture
def folder(recipe_file: Path) -> Path:
    """A text LLM and a monolithic model, each in a folder, beside text and pictures."""
    folder = recipe_file.parent
    backbone = tiny_backbone(family="internlm2", **WIDE)
    language = MonoModel.graft(backbone)
    made = MonoModel.graft(
        backbone, patchifier=PatchifierConfig(16, 4, 6), experts=ExpertsConfig(ffn=(0, 1))
    )
    randomize(made, seed=1)
    for model, name in ((language, "language"), (made, "model")):
        renderer = make_renderer(model, backbone.tokenizer, "chatml", None)
        Assistant(model, renderer, "chatml").save(folder / name)
    return folder
