"""What a source yields and everything behind it reads: images, questions and answers, or text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from lightning_mono.errors import DataError

Split = Literal["train", "test"]

Fault = Literal[
    "malformed record",
    "missing file",
    "unsafe path",
    "unreadable image",
    "too large",
    "too long",
    "image count",
    "bad text",
    "nothing to learn",
]
"""Why a sample cannot be used, in the words of a report.

malformed record: not JSON, a key is missing or of the wrong type; a damaged archive or table.
missing file: the image is not there, or cannot be opened. unsafe path: absolute, or it leaves the
root by ``..`` or by a link. unreadable image: no image, damaged or cut off. too large: more pixels
or bytes than anyone means. too long: more text than that. image count: as many ``<image>`` as
images, or none. bad text: not UTF-8. nothing to learn: an answer is empty, or there is none.
"""

PLACEHOLDER = "<image>"
"""Stands for a picture in a question."""


@dataclass(frozen=True)
class Turn:
    """One question of a conversation with the pictures that come with it.

    Attributes:
        question: what is asked; ``<image>`` in it stands for the next of the pictures, and without
            any the pictures stand in front.
        images: encoded image files, or pictures.
        answer: what was answered; None where the answer is still to come.
    """

    question: str
    images: tuple[bytes | Image.Image, ...] = ()
    answer: str | None = None


@dataclass(frozen=True)
class Exchange:
    """One question with its answer.

    Attributes:
        question: what is asked, without any chat markup; see :class:`Sample` for ``<image>``.
        answer: what the model is to say.
        kind: the type of question, for reports; may be empty.
    """

    question: str
    answer: str
    kind: str = ""


@dataclass(frozen=True)
class Sample:
    """Images and text that share one context, and the exchanges about them.

    Three shapes occur: images with exchanges; a text with exchanges, which share it ("reading");
    a text alone, which is a document to be modelled from its first word to its last.

    The images open the first question, unless ``<image>`` in the questions says where each of them
    stands. Exchanges that are independent share the images, so there it may only open the first.

    Attributes:
        id: unique in its source and split.
        images: encoded image files, in the order in which they are shown.
        exchanges: independent of each other, unless ``dialogue``.
        text: a document, or what the exchanges are about.
        dialogue: each exchange follows upon the one before it and may refer to it.
        sizes: (width, height) of each image in pixels, upright; preparation fills it in.
    """

    id: str
    images: tuple[bytes, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    text: str = ""
    dialogue: bool = False
    sizes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Skipped:
    """A sample that could not be used, and why; counted and reported, never fatal."""

    id: str
    reason: str
    fault: Fault = "malformed record"


@dataclass(frozen=True)
class Pending:
    """A sample that is still to be read, by whichever process.

    Attributes:
        read: reads it; None where it belongs to the other split.
        nbytes: what it takes to send it to another process, roughly.
        where: its place in the user's files, for messages; empty where its id says as much.
    """

    read: Callable[[], Sample | Skipped | None]
    nbytes: int
    where: str = ""


class SampleError(DataError):
    """Says of one sample, or one file of it, why it cannot be used."""

    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(fault, reason)  # both, or it could not be pickled
        self.fault = fault
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


def without_leading(question: str) -> tuple[int, str]:
    """How many placeholders a question begins with, and the rest of it."""
    count, rest = 0, question.strip()
    while rest.startswith(PLACEHOLDER):
        count, rest = count + 1, rest.removeprefix(PLACEHOLDER).lstrip()
    return count, rest


def held_out(key: str, share: float) -> bool:
    """Whether ``key`` belongs to the held-out ``share`` (0 to 1); the same on every machine.

    Args:
        key: what must not be in both splits, such as a caption, not the number of a file.
        share: the expected share of distinct keys that is held out.
    """
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
