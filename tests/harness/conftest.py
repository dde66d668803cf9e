"""Tiny models on disk for the harnesses to load."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from lightning_mono.backbones.tokenizer_files import TokenizerFiles
from lightning_mono.data.images import ImageProcessor
from lightning_mono.inference import Assistant, make_renderer
from lightning_mono.model import ExpertsConfig, MonoModel, PatchifierConfig
from lightning_mono.testing import randomize, tiny_backbone

# They cannot be read where the packages are not; `make test-harness` has them.
collect_ignore = [f"test_{name}.py" for name in ("lm_eval", "lmms_eval") if not find_spec(name)]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No network, one thread, and caches that no other test sees."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def text_model(tmp_path: Path) -> Path:
    """A text LLM in Hugging Face layout, which transformers reads too."""
    backbone = tiny_backbone(seed=4)
    model = MonoModel.graft(backbone)
    renderer = make_renderer(model, backbone.tokenizer, "plain", None)
    files = TokenizerFiles.of_backbone(backbone)
    Assistant(model, renderer, "plain", files).save(tmp_path / "text")
    return tmp_path / "text"


@pytest.fixture
def seeing_model(tmp_path: Path) -> Path:
    """A model with eyes and experts that are not the text weights."""
    backbone = tiny_backbone(seed=4, max_positions=512)
    patchifier = PatchifierConfig(image_size=16, patch_size=4, width=6, merge=2)
    model = MonoModel.graft(backbone, patchifier=patchifier, experts=ExpertsConfig(ffn=(0, 1)))
    randomize(model, seed=5, only=(".visual.", "patchifier."))
    images = ImageProcessor(size=16)
    renderer = make_renderer(model, backbone.tokenizer, "plain", images)
    files = TokenizerFiles.of_backbone(backbone)
    Assistant(model, renderer, "plain", files).save(tmp_path / "seeing")
    return tmp_path / "seeing"
