"""Tiny benchmarks and a tiny model that tells pictures and questions apart."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lightning_mono.backbones.tokenizer import add_image_tokens
from lightning_mono.data.images import ImageProcessor
from lightning_mono.inference import Assistant, make_renderer
from lightning_mono.model import ExpertsConfig, MonoModel, PatchifierConfig
from lightning_mono.testing import randomize, tiny_backbone

Write = Callable[..., Path]


def png(color: str = "red", size: tuple[int, int] = (16, 16)) -> bytes:
    """An encoded picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return file.getvalue()


def make_assistant(seed: int = 1) -> Assistant:
    backbone = tiny_backbone()
    patchifier, experts = PatchifierConfig(16, 4, 6), ExpertsConfig(ffn=(0, 1))
    add_image_tokens(backbone.tokenizer)
    model = MonoModel.graft(backbone, patchifier=patchifier, experts=experts)
    randomize(model, seed=seed)
    images = ImageProcessor(16, max_tiles=2)
    return Assistant(model, make_renderer(model, backbone.tokenizer, "plain", images), "plain")


@pytest.fixture
def assistant() -> Assistant:
    return make_assistant()


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sums are split by thread: here, and in processes that are started, there is one."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes objects, and text as it is, a line each; beside red.png and blue.png."""

    def lines(*objects: object, name: str = "own.jsonl") -> Path:
        (tmp_path / "red.png").write_bytes(png())
        (tmp_path / "blue.png").write_bytes(png("blue", (40, 16)))
        text = [each if isinstance(each, str) else json.dumps(each) for each in objects]
        (tmp_path / name).write_text("\n".join(text), encoding="utf-8")
        return tmp_path / name

    return lines


QUESTIONS = ("is it red?", "what?", "is it a blue square?", "yes?", "a red circle?")


@pytest.fixture
def questions(write: Write) -> Path:
    """Eleven questions of unlike lengths, with one picture, with two, and with none."""
    records = []
    for number in range(11):
        images = [["red.png"], ["blue.png", "red.png"], []][number % 3]
        asked = f"{QUESTIONS[number % 5]} {'a square ' * (number % 4)}"
        record = {"id": f"q{number}", "images": images, "question": asked}
        records.append({**record, "answers": ["yes", "red"][: 1 + number % 2], "kind": asked[:2]})
    return write({"benchmark": "tiny", "scoring": "exact_match", "max_new_tokens": 6}, *records)
