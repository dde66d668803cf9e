"""A tiny model that cuts pictures into up to twelve tiles and a thumbnail."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lightning_mono.data.images import ImageProcessor
from lightning_mono.inference import Assistant, make_renderer
from lightning_mono.model import ExpertsConfig, MonoModel, PatchifierConfig
from lightning_mono.testing import randomize, tiny_backbone

QUESTION = "is it red?"


def noise(width: int, height: int) -> bytes:
    """An encoded picture."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="session")
def assistant() -> Assistant:
    backbone = tiny_backbone()
    model = MonoModel.graft(
        backbone,
        patchifier=PatchifierConfig(16, 4, 6),
        experts=ExpertsConfig(ffn=(0, 1), attention=(1,)),
    )
    randomize(model, seed=1)
    images = ImageProcessor(16, max_tiles=12, thumbnail=True)
    return Assistant(model, make_renderer(model, backbone.tokenizer, "chatml", images), "chatml")
