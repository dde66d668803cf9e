"""Small tokenizers, pictures and data sets that need no network."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from tokenizers import Tokenizer

from lightning_mono.backbones.tokenizer import add_image_tokens, train_bpe
from lightning_mono.data.images import ImageProcessor
from lightning_mono.data.render import Renderer
from lightning_mono.data.templates import CHAT_TEMPLATES

TEXT = "is there a red triangle in the image? what color is the shape? yes no a blue circle."


def png(color: str = "red", size: tuple[int, int] = (8, 8)) -> bytes:
    """An encoded picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    trained = train_bpe([TEXT] * 4, 300)
    add_image_tokens(trained)
    return trained


@pytest.fixture
def plain(tokenizer: Tokenizer) -> Renderer:
    template = CHAT_TEMPLATES["plain"]
    return Renderer(tokenizer, template, add_image_tokens(tokenizer), ImageProcessor(8), 3)


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[[list[object]], Path]:
    """Writes lines (objects, or text as it is) beside a picture ``red.png``."""

    def write(lines: list[object]) -> Path:
        folder = tmp_path / "own"
        folder.mkdir(exist_ok=True)
        (folder / "red.png").write_bytes(png())
        text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (folder / "data.jsonl").write_text("\n".join(text))
        return folder / "data.jsonl"

    return write
