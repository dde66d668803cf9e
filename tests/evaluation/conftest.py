"""A finished run for the tests of this folder, and a tiny model that cuts pictures into tiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_mono.data.images import ImageProcessor
from lightning_mono.inference import Assistant, make_renderer
from lightning_mono.model import ExpertsConfig, MonoModel, PatchifierConfig
from lightning_mono.testing import randomize, tiny_backbone

from .made_runs import write_run


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
    """The folder of a finished run and its test pictures."""
    folder = tmp_path / "quickstart"
    return folder, write_run(folder)


@pytest.fixture(scope="session")
def assistant() -> Assistant:
    """Random weights; up to four tiles of 16 x 16 pixels and a thumbnail, four tokens each."""
    backbone = tiny_backbone()
    model = MonoModel.graft(
        backbone, patchifier=PatchifierConfig(16, 4, 6), experts=ExpertsConfig(ffn=(0, 1))
    )
    randomize(model, seed=1)
    images = ImageProcessor(16, max_tiles=4, thumbnail=True)
    return Assistant(model, make_renderer(model, backbone.tokenizer, "chatml", images), "chatml")
