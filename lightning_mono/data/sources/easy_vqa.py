"""easy-VQA (MIT): 64-pixel pictures of one coloured shape, with simple questions about them.

Published splits: 4,000 pictures with 38,575 questions to train, 1,000 with 9,673 to test, and 13
answers. The captions are ours: they say what the published answers settle about a picture.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_mono import assets
from lightning_mono.data.sample import Exchange, Sample, Skipped
from lightning_mono.errors import DataError

WHEEL_SHA256 = "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f"
COLORS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES = ("circle", "rectangle", "triangle")
CAPTION_QUESTION = "describe the image."


def questions(split: str) -> Iterator[Sample | Skipped]:
    """Every picture with its published questions; kinds: color, shape, presence, absence."""
    for picture in _pictures(split):
        yield _with_image(picture, picture.exchanges)


def blind(split: str) -> Iterator[Sample | Skipped]:
    """The published questions without the pictures: what can be known without looking."""
    for picture in _pictures(split):
        yield Sample(picture.id, exchanges=picture.exchanges)


def captions(split: str) -> Iterator[Sample | Skipped]:
    """The pictures whose answers settle both color and shape, each as ``a red triangle``."""
    for picture in _pictures(split):
        colors, shapes = _settled(picture.exchanges)
        if len(colors) == len(shapes) == 1:
            answer = _caption(colors, shapes)
            yield _with_image(picture, (Exchange(CAPTION_QUESTION, answer, "caption"),))


def reading(split: str) -> Iterator[Sample | Skipped]:
    """The questions asked of the caption instead of the picture: text only.

    It teaches a language model what the questions mean before it ever sees a picture. The caption
    also says what the picture is not where the answers leave that open, so that every question can
    be answered from the caption.
    """
    for picture in _pictures(split):
        text = f"the image shows {_caption(*_settled(picture.exchanges))}."
        yield Sample(picture.id, exchanges=picture.exchanges, text=text)


@dataclass(frozen=True)
class _Picture:
    id: str
    path: Path
    exchanges: tuple[Exchange, ...]


def _pictures(split: str) -> Iterator[_Picture]:
    folder = assets.pypi("easy-vqa", "1.0", WHEEL_SHA256) / "easy_vqa" / "data" / split
    try:
        triples = json.loads((folder / "questions.json").read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read {folder / 'questions.json'} ({error}); delete its folder and try again"
        ) from error
    by_image: dict[int, list[Exchange]] = defaultdict(list)
    for question, answer, image in triples:
        by_image[image].append(Exchange(question, answer, _kind(question, answer)))
    for image, exchanges in sorted(by_image.items()):
        yield _Picture(f"{split}/{image}", folder / "images" / f"{image}.png", tuple(exchanges))


def _with_image(picture: _Picture, exchanges: tuple[Exchange, ...]) -> Sample | Skipped:
    try:
        return Sample(picture.id, (picture.path.read_bytes(),), exchanges)
    except OSError as error:
        return Skipped(picture.id, f"cannot read {picture.path}: {error.strerror}")


def _kind(question: str, answer: str) -> str:
    if answer in COLORS:
        return "color"
    if answer in SHAPES:
        return "shape"
    return "absence" if _negated(question) else "presence"


def _negated(question: str) -> bool:
    return re.search(r"\b(not|no)\b", question) is not None


def _settled(exchanges: tuple[Exchange, ...]) -> tuple[set[str], set[str]]:
    """The colors and the shapes that are possible given all answers."""
    colors, shapes = set(COLORS), set(SHAPES)
    for exchange in exchanges:
        words = set(re.findall(r"\w+", exchange.question))
        true = exchange.kind in ("color", "shape")
        said = words | {exchange.answer} if true else words
        true = true or (exchange.answer == "yes") != (exchange.kind == "absence")
        for possible in (colors, shapes):
            mentioned = possible & said
            if not true:
                possible -= mentioned
            elif mentioned:
                possible &= mentioned
    return colors, shapes


def _caption(colors: set[str], shapes: set[str]) -> str:
    color = next(iter(colors)) if len(colors) == 1 else ""
    shape = next(iter(shapes)) if len(shapes) == 1 else "shape"
    not_color = sorted(set(COLORS) - colors) if not color else []
    not_shape = sorted(set(SHAPES) - shapes) if shape == "shape" else []
    caption = " ".join(filter(None, ("a", color, shape)))
    for value in not_color:
        caption += f", not {value}"
    for value in not_shape:
        caption += f", not a {value}"
    return caption
