"""What the two processes tell each other."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_mono.data.sample import Turn


@dataclass(frozen=True)
class Job:
    """A conversation to continue.

    Attributes:
        id: of the request, unique.
        turns: with the encoded pictures; the last has no answer.
        fields: where the pictures of each turn stood in the request, for messages.
        system: the system message; None for the model's own.
        max_new_tokens: at most so many; None for as many as may be.
        stop: the answer ends before the first of these strings.
        seed: makes sampling repeatable.
        temperature, top_p, top_k, repetition_penalty: as in ``MonoModel.generate``.
    """

    id: str
    turns: tuple[Turn, ...]
    fields: tuple[tuple[str, ...], ...]
    system: str | None
    max_new_tokens: int | None
    stop: tuple[str, ...]
    seed: int | None
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float


@dataclass(frozen=True)
class Cancel:
    """Nobody waits for this job any more."""

    id: str


@dataclass(frozen=True)
class Count:
    """Somebody asks what the engine is doing."""

    id: str


Message = Job | Cancel | Count


@dataclass(frozen=True)
class Accepted:
    """The job has a place in the engine; what follows are pieces, and the end."""


@dataclass(frozen=True)
class Piece:
    """Some more of the answer's text."""

    text: str


@dataclass(frozen=True)
class Ended:
    """The answer is over.

    Attributes:
        reason: "stop" at a stop string or token, "length" at the most tokens.
        prompt_tokens: of the prompt, image tokens included.
        cached_tokens: those of the prompt that had been read before.
        new_tokens: of the answer, what ended it included.
    """

    reason: str
    prompt_tokens: int
    cached_tokens: int
    new_tokens: int


@dataclass(frozen=True)
class Refused:
    """The job gets no answer; as :class:`~lightning_mono.server.refusal.Refusal` says it.

    Attributes:
        status: of HTTP.
        detail: message, param and code.
    """

    status: int
    detail: dict[str, str | None]


@dataclass(frozen=True)
class Counted:
    """What the engine is doing and has done, by name."""

    counts: dict[str, int]


Event = Accepted | Piece | Ended | Refused | Counted
