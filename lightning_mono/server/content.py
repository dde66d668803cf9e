"""From messages to turns: who spoke when, and which pictures come with what was said."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from lightning_mono.data.sample import PLACEHOLDER, Turn
from lightning_mono.server.protocol import (
    Assistant,
    ChatRequest,
    File,
    Image,
    Part,
    System,
    Text,
    User,
)
from lightning_mono.server.refusal import Refusal

Fetch = Callable[[Image | File, str], Awaitable[bytes]]
"""Gets the encoded picture of a part that stood in a field."""


@dataclass(frozen=True)
class Talk:
    """A conversation up to the question that is to be answered.

    Attributes:
        system: the system message; None where there is none.
        turns: with encoded pictures.
        fields: where each turn's pictures stood in the request.
    """

    system: str | None
    turns: tuple[Turn, ...]
    fields: tuple[tuple[str, ...], ...]

    @property
    def images(self) -> list[bytes]:
        """The pictures of all turns."""
        return [data for turn in self.turns for data in turn.images if isinstance(data, bytes)]


async def read_talk(request: ChatRequest, fetch: Fetch, most_images: int) -> Talk:
    """The conversation of a request.

    Raises:
        Refusal: roles out of order, too many pictures, or a picture that cannot be had.
    """
    messages = list(request.messages)
    at = 0
    while at < len(messages) and isinstance(messages[at], System):
        at += 1
    system = "\n".join(_words(message.content) for message in messages[:at]) if at else None
    spoken = messages[at:]
    _check_order(spoken, at)
    _check_count(spoken, most_images)
    turns, fields = [], []
    for number in range(0, len(spoken), 2):
        asked, answered = spoken[number], spoken[number + 1 : number + 2]
        places = [
            (part, f"messages.{at + number}.content.{place}")
            for place, part in enumerate(asked.content)
            if not isinstance(part, Text)
        ]
        images = [await fetch(part, field) for part, field in places]
        answer = _words(answered[0].content) if answered else None
        turns.append(Turn(_question(asked.content), tuple(images), answer))
        fields.append(tuple(field for _, field in places))
    return Talk(system, tuple(turns), tuple(fields))


def _check_order(spoken: Sequence[System | User | Assistant], first: int) -> None:
    for at, message in enumerate(spoken):
        expected = "assistant" if at % 2 else "user"
        if message.role != expected:
            raise Refusal(
                f"messages.{first + at}.role is {message.role!r} where {expected!r} is due: "
                "system messages come first, then user and assistant take turns",
                param=f"messages.{first + at}.role",
            )
    if len(spoken) % 2 == 0:
        last = first + len(spoken) - 1
        raise Refusal(
            f"messages.{last}.role: the last message must be the user's",
            param=f"messages.{last}.role",
        )


def _check_count(spoken: Sequence[System | User | Assistant], most: int) -> None:
    count = sum(not isinstance(part, Text) for message in spoken for part in message.content)
    if count > most:
        raise Refusal(
            f"messages: {count} images, {most} are allowed",
            param="messages",
            code="too_many_images",
        )


def _question(parts: Sequence[Part]) -> str:
    """What was asked, with a placeholder for each picture where text stands on both sides of one.

    Pictures that only precede or follow the text stand in front of it, as in training.
    """
    kinds = [isinstance(part, Text) for part in parts]
    first = kinds.index(True) if True in kinds else len(kinds)
    last = len(kinds) - kinds[::-1].index(True) if True in kinds else len(kinds)
    if all(kinds[first:last]):
        return _words(parts)
    return "\n".join(part.text if isinstance(part, Text) else PLACEHOLDER for part in parts)


def _words(parts: Sequence[Part]) -> str:
    return "\n".join(part.text for part in parts if isinstance(part, Text))
