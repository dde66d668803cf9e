"""One record of a user's data, whatever file it stood in, to a sample.

A record holds what a sample holds, in any of these forms, images being optional in all of them::

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

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from lightning_mono.data.sample import (
    PLACEHOLDER,
    Exchange,
    Sample,
    SampleError,
    Skipped,
    held_out,
    without_leading,
)

CAPTION_QUESTION = "Describe the image."
_HUMAN, _MODEL = ("human", "user"), ("gpt", "assistant")

Load = Callable[[Any], bytes]
"""Reads an image by what a record calls it."""


@dataclass(frozen=True)
class Side:
    """What a split takes of records that come without splits.

    Attributes:
        split: ``train`` or ``test``.
        share: share of the records that belong to ``test`` and not to ``train``, 0 to 1; where it
            is 0 either split has them all.
    """

    split: str
    share: float = 0.0

    def takes(self, key: str) -> bool:
        return not self.share or held_out(key, self.share) == (self.split == "test")


def read(
    record_of: Callable[[], Any], where: str, load: Load, side: Side
) -> Sample | Skipped | None:
    """Reads one record with its images.

    Records of the same picture belong to the same side.

    Args:
        record_of: gives the record.
        where: what it is called in messages, and where it has no id.
        load: reads its images.
        side: which records are wanted.

    Returns:
        The sample, why there is none, or None where it belongs to the other side.
    """
    name = key = where
    try:
        record = record_of()
        if not isinstance(record, dict):
            raise SampleError("malformed record", "not a JSON object")
        name = str(record.get("id", where))
        images = _images(record)
        key = next((image for image in images if isinstance(image, str)), name)
        return _sample(record, name, images, load) if side.takes(key) else None
    except SampleError as error:
        reason = str(error) if name == where else f"{where}: {error}"
        skipped = Skipped(name, reason, error.fault)
        return skipped if side.takes(key) else None


def _sample(record: dict[str, Any], name: str, images: list[Any], load: Load) -> Sample:
    if not images and ("caption" in record or PLACEHOLDER in str(record.get("conversations"))):
        raise SampleError("image count", "is about an image but names none")
    exchanges, placed = _placed(list(_exchanges(record)), len(images))
    return Sample(
        id=name,
        images=tuple(map(load, images)),
        exchanges=exchanges,
        text=_string(record, "text") if "text" in record else "",
        dialogue=len(exchanges) > 1 or placed,
    )


def _exchanges(record: dict[str, Any]) -> Iterator[Exchange]:
    kind = str(record.get("kind", ""))
    if "conversations" in record:
        yield from _turns(record["conversations"], kind)
    elif "question" in record:
        yield Exchange(_string(record, "question"), _string(record, "answer"), kind)
    elif "caption" in record:
        yield Exchange(CAPTION_QUESTION, _string(record, "caption"), kind)
    elif "text" not in record:
        raise SampleError(
            "malformed record", "has none of conversations, question, caption and text"
        )


def _placed(exchanges: list[Exchange], images: int) -> tuple[tuple[Exchange, ...], bool]:
    """The exchanges, and whether they say where pictures stand other than in front of them all."""
    places = sum(exchange.question.count(PLACEHOLDER) for exchange in exchanges)
    if places not in (0, images):
        raise SampleError("image count", f"has {places} {PLACEHOLDER} for {images} images")
    if not places:
        return tuple(exchanges), False
    leading, question = without_leading(exchanges[0].question)
    if leading == places:
        return (replace(exchanges[0], question=question), *exchanges[1:]), False
    return tuple(exchanges), True


def _turns(turns: Any, kind: str) -> Iterator[Exchange]:
    """The exchanges of a conversation; what a model says before any question is left out.

    The published training code leaves that out as well.
    """
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise SampleError("malformed record", "conversations is not a list of objects")
    if turns and turns[0].get("from") in _MODEL:
        turns = turns[1:]
    odd = SampleError("malformed record", "conversations does not alternate between human and gpt")
    if len(turns) % 2 or not turns:
        raise odd
    for asked, answered in zip(turns[::2], turns[1::2], strict=True):
        if asked.get("from") not in _HUMAN or answered.get("from") not in _MODEL:
            raise odd
        question = _string(asked, "value").strip()
        yield Exchange(question, _string(answered, "value"), kind)


def _images(record: dict[str, Any]) -> list[Any]:
    images = record.get("images", record.get("image")) or []
    return images if isinstance(images, list) else [images]


def _string(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        reason = f"{key} is not a string" if key in record else f"has no {key}"
        raise SampleError("malformed record", reason)
    return value
