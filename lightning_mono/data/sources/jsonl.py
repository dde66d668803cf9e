"""A user's own data: one JSON object a line, beside the images that it names.

A line holds what a sample holds, in any of these forms, images being optional in all of them::

    {"id": "7", "image": "cat.jpg", "question": "What is it?", "answer": "a cat", "kind": "animal"}
    {"images": ["a.png", "b.png"], "caption": "two views of a cat"}
    {"image": "cat.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"},
                                           {"from": "gpt", "value": "a cat"}]}
    {"text": "a document"}

``<image>`` in a question or in what a human says stands for the next picture, so there are as many
as pictures, or none. Where they only open the first question they are taken out: that is where
pictures stand anyway.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_mono.data.sample import (
    PLACEHOLDER,
    Exchange,
    Sample,
    Skipped,
    held_out,
    without_leading,
)
from lightning_mono.errors import DataError

CAPTION_QUESTION = "Describe the image."
_HUMAN, _MODEL = ("human", "user"), ("gpt", "assistant")


def records(
    split: str, path: str, images: str | None = None, held_out_share: float = 0.0
) -> Iterator[Sample | Skipped]:
    """The lines of a JSONL file; a line that cannot be used is skipped with the reason.

    Args:
        split: ``train`` or ``test``; without ``held_out_share`` either is the whole file.
        path: the file.
        images: the folder that image names start from, and must stay in; the file's by default.
        held_out_share: share of the ids that belong to ``test`` and not to ``train``, 0 to 1.

    Raises:
        DataError: the file cannot be read.
    """
    root = (Path(images) if images else Path(path).parent).resolve()
    try:
        with Path(path).open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                sample = _sample(line, number, root)
                whole = not held_out_share
                if whole or held_out(sample.id, held_out_share) == (split == "test"):
                    yield sample
    except OSError as error:
        raise DataError(f"source jsonl: cannot read {path}: {error.strerror}") from error


def file_stamp(path: str, images: str | None = None, held_out_share: float = 0.0) -> str:
    """Size and time of the file; images that change in place are not noticed."""
    try:
        stat = Path(path).stat()
    except OSError as error:
        raise DataError(f"source jsonl: cannot read {path}: {error.strerror}") from error
    return f"{Path(path).absolute()} {stat.st_size} {stat.st_mtime_ns}"


def _sample(line: bytes, number: int, root: Path) -> Sample | Skipped:
    name = f"line {number}"
    try:
        record = json.loads(line)
        if not isinstance(record, dict):
            raise ValueError("not a JSON object")
        name = str(record.get("id", name))
        images = _images(record)
        if not images and ("caption" in record or PLACEHOLDER in str(record.get("conversations"))):
            raise ValueError("is about an image but names none")
        exchanges, placed = _placed(list(_exchanges(record)), len(images))
        return Sample(
            id=name,
            images=tuple(_read(root, image) for image in images),
            exchanges=exchanges,
            text=_string(record, "text") if "text" in record else "",
            dialogue=len(exchanges) > 1 or placed,
        )
    except json.JSONDecodeError as error:
        return Skipped(name, f"line {number} is not JSON: {error.msg}")
    except (ValueError, RecursionError) as error:
        return Skipped(name, f"line {number}: {error}")


def _exchanges(record: dict[str, Any]) -> Iterator[Exchange]:
    kind = str(record.get("kind", ""))
    if "conversations" in record:
        yield from _turns(record["conversations"], kind)
    elif "question" in record:
        yield Exchange(_string(record, "question"), _string(record, "answer"), kind)
    elif "caption" in record:
        yield Exchange(CAPTION_QUESTION, _string(record, "caption"), kind)
    elif "text" not in record:
        raise ValueError("has none of conversations, question, caption and text")


def _placed(exchanges: list[Exchange], images: int) -> tuple[tuple[Exchange, ...], bool]:
    """The exchanges, and whether they say where pictures stand other than in front of them all."""
    places = sum(exchange.question.count(PLACEHOLDER) for exchange in exchanges)
    if places not in (0, images):
        raise ValueError(f"has {places} {PLACEHOLDER} for {images} images")
    if not places:
        return tuple(exchanges), False
    leading, question = without_leading(exchanges[0].question)
    if leading == places:
        return (replace(exchanges[0], question=question), *exchanges[1:]), False
    return tuple(exchanges), True


def _turns(turns: Any, kind: str) -> Iterator[Exchange]:
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError("conversations is not a list of objects")
    if len(turns) % 2 or not turns:
        raise ValueError("conversations does not alternate between human and gpt")
    for asked, answered in zip(turns[::2], turns[1::2], strict=True):
        if asked.get("from") not in _HUMAN or answered.get("from") not in _MODEL:
            raise ValueError("conversations does not alternate between human and gpt")
        question = _string(asked, "value").strip()
        yield Exchange(question, _string(answered, "value"), kind)


def _images(record: dict[str, Any]) -> list[str]:
    images = record.get("images", record.get("image", []))
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise ValueError("image is not a file name, or images not a list of them")
    return images


def _read(root: Path, image: str) -> bytes:
    try:
        file = (root / image).resolve()
        if not file.is_relative_to(root):
            raise ValueError(f"image {image} lies outside {root}")
        return file.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read image {image}: {error.strerror}") from error


def _string(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key} is not a string" if key in record else f"has no {key}")
    return value
