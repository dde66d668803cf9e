"""Tokens, prompts, loss masks and pixels are the official code's; see `tests/golden/README.md`."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer

from lightning_mono.backbones.tokenizer import image_tokens, read_tokenizer
from lightning_mono.data.images import ImageProcessor
from lightning_mono.data.render import Renderer
from lightning_mono.data.sample import Exchange, Sample, Turn
from lightning_mono.data.templates import CHAT_TEMPLATES

GOLDEN = Path(__file__).parents[1] / "golden" / "text"
TOKENIZERS = ("with_prefix", "without_prefix")
SIZES = {
    1: (28, 28),
    3: (56, 28),
}  # of pictures that are cut into so many tiles, thumbnail included
RENAMED = "[UNUSED_TOKEN_146]"  # the piece whose id <|im_start|> has


def _cases(*path: str) -> list[Any]:
    return json.loads(GOLDEN.joinpath(*path).read_text("utf-8"))


def _each(name: str) -> list[Any]:
    """Every case of a file, for both tokenizers."""
    return [
        pytest.param(tokenizer, case, id=f"{tokenizer}-{case['name']}")
        for tokenizer in TOKENIZERS
        for case in _cases(tokenizer, f"{name}.json")
    ]


@cache
def _tokenizer(name: str) -> Tokenizer:
    return read_tokenizer(GOLDEN / name)


def _renderer(name: str) -> Renderer:
    tokenizer = _tokenizer(name)
    images = ImageProcessor(28, max_tiles=6, thumbnail=True)
    template = CHAT_TEMPLATES["internlm2-chat"]
    return Renderer(tokenizer, template, image_tokens(tokenizer), images, tokens_per_tile=4)


def _picture(tiles: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", SIZES[tiles]).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_text_to_ids_and_back(name: str) -> None:
    """But for a spare piece that an added token took the id of: its name is words like others.

    To the official tokenizer of InternLM2, whose spare pieces are found in any text, that name is
    the special token; nobody is to open a turn in the words of another.
    """
    tokenizer = _tokenizer(name)
    for case in _cases(name, "texts.json"):
        ids = tokenizer.encode(case["text"]).ids
        if case["text"] == RENAMED:
            assert tokenizer.token_to_id("<|im_start|>") not in ids
            continue
        assert ids == case["ids"], case["text"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == case["decoded"]


@pytest.mark.parametrize(("name", "case"), _each("prompts"))
def test_prompts(name: str, case: dict[str, Any]) -> None:
    renderer = _renderer(name)
    questions = [*(question for question, _ in case["history"]), case["question"]]
    answers = [*(answer for _, answer in case["history"]), None]
    shown = [tuple(map(_picture, case["tiles"])), *[()] * len(case["history"])]
    turns = [Turn(*turn) for turn in zip(questions, shown, answers, strict=True)]
    prompt = renderer.conversation(turns)
    assert prompt.input_ids.tolist() == case["ids"]
    assert len(prompt.pixel_values) == sum(case["tiles"])
    assert case["stop_id"] in renderer.stop_ids


@pytest.mark.parametrize(("name", "case"), _each("training"))
def test_training(name: str, case: dict[str, Any]) -> None:
    """The official code finds answers by counting tokens piece by piece, and gives up on a sample
    where the sum is not that of the whole: always with a dummy prefix, where ids alone compare.
    """
    exchanges = tuple(Exchange(*turn) for turn in case["turns"])
    images = tuple(map(_picture, case["tiles"]))
    example = _renderer(name).example(Sample("s", images, exchanges, dialogue=True), 4096)
    assert example is not None
    assert example.input_ids.tolist() == case["ids"]
    assert len(example.tiles) == sum(case["tiles"])
    assert bool(case["warning"]) == (name == "with_prefix")
    if not case["warning"]:
        labels = np.where(example.supervised, example.input_ids, -100)
        assert labels.tolist() == case["labels"]


@pytest.mark.parametrize("case", _cases("images.json"), ids=lambda c: f"{c['width']}x{c['height']}")
def test_images(case: dict[str, Any]) -> None:
    y, x = np.mgrid[: case["height"], : case["width"]]
    channels = [3 * x + y, x * y // 7, 5 * y + x // 3]
    image = Image.fromarray((np.stack(channels, -1) % 256).astype(np.uint8))
    processor = ImageProcessor(case["size"], case["max_tiles"], case["thumbnail"])
    assert list(processor.grid(*image.size)) == case["grid"]
    assert processor.tile_count(*image.size) == case["tiles"]
    pixels = processor.normalise(processor.tiles(image))
    assert len(pixels) == case["tiles"]
    rows, columns = np.array(case["at"]).T
    points = pixels[:, :, rows, columns].swapaxes(1, 2)  # (tiles, points, channels)
    np.testing.assert_allclose(points, case["pixels"], atol=1e-6)
    wide = pixels.astype(np.float64)
    np.testing.assert_allclose(wide.mean((2, 3)), case["mean"], atol=1e-6)
    np.testing.assert_allclose(wide.std((2, 3)), case["std"], atol=1e-6)
