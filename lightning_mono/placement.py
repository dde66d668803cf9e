"""Which decoder layers own visual weights: the words a recipe uses, turned into layer numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence


def layers_of(placement: str | int | Sequence[int], layers: int) -> tuple[int, ...]:
    """Resolves a placement against a decoder of ``layers`` layers.

    ``all``, ``none``, ``first:N``, ``last:N``, ``every:N`` (layers 0, N, 2N, ...), ``A-B`` (both
    ends included), a number, or a list of numbers.

    Raises:
        ValueError: one line that says what is wrong and what is allowed.
    """
    if isinstance(placement, str):
        return _from_words(placement.strip(), layers)
    numbers = placement if isinstance(placement, list | tuple) else [placement]
    if not all(type(number) is int for number in numbers):  # True would pass for layer 1
        raise _no_placement(placement)
    chosen = tuple(sorted(set(numbers)))
    outside = [i for i in chosen if not 0 <= i < layers]
    if outside:
        raise ValueError(f"layer {outside[0]} does not exist: the backbone has 0 to {layers - 1}")
    return chosen


def _from_words(words: str, layers: int) -> tuple[int, ...]:
    if words in ("all", "none"):
        return tuple(range(layers)) if words == "all" else ()
    if match := re.fullmatch(r"(first|last|every):(\d+)", words):
        kind, number = match[1], int(match[2])
        if not 1 <= number <= layers:
            raise ValueError(f"{words!r} does not fit: the backbone has {layers} layers")
        if kind == "every":
            return tuple(range(0, layers, number))
        return tuple(range(number) if kind == "first" else range(layers - number, layers))
    if match := re.fullmatch(r"(\d+)-(\d+)", words):
        low, high = int(match[1]), int(match[2])
        if low > high or high >= layers:
            raise ValueError(f"{words!r} does not fit: the backbone has layers 0 to {layers - 1}")
        return tuple(range(low, high + 1))
    if words.isdecimal():
        return layers_of([int(words)], layers)
    raise _no_placement(words)


def _no_placement(found: object) -> ValueError:
    return ValueError(
        f"{found!r} is no placement; use all, none, first:N, last:N, every:N, A-B or [0, 3, 7]"
    )
