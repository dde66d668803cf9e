"""What is measured: an FFN of two modalities, its tokens, and how visual ones lie among them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

SHAPES = {"135m": (576, 1536), "2b": (2048, 8192), "7b": (4096, 14336)}
"""Hidden and FFN size of SmolLM2-135M, of InternLM2-1.8B (Mono-InternVL-2B), of InternLM2-7B."""


class Shape(NamedTuple):
    """Sizes of an FFN, under the name that the user gave."""

    name: str
    hidden: int
    ffn: int


@dataclass(frozen=True)
class Case:
    """One point of a sweep.

    Attributes:
        shape: sizes of the FFN.
        tokens: rows of the batch.
        share: of them visual, 0 to 1.
        run: length of a visual run, where there is enough text to part them.
    """

    shape: Shape
    tokens: int
    share: float
    run: int

    @property
    def visual(self) -> int:
        return round(self.tokens * self.share)

    @property
    def text(self) -> int:
        return self.tokens - self.visual

    @property
    def runs(self) -> int:
        """Visual runs; with too little text between them, fewer and longer ones."""
        return min(-(-self.visual // self.run), max(self.text, 1))

    def flags(self) -> list[bool]:
        """Runs of visual tokens, each with text behind it; True where visual, one a token."""
        if not self.visual:
            return [False] * self.tokens
        pairs = zip(_even(self.visual, self.runs), _even(self.text, self.runs), strict=True)
        return [flag for visual, text in pairs for flag in [True] * visual + [False] * text]


def _even(count: int, parts: int) -> list[int]:
    """Sizes of ``parts`` parts of ``count``, which differ by one at most."""
    return [(i + 1) * count // parts - i * count // parts for i in range(parts)]


def sweep(
    shapes: Sequence[Shape], tokens: Sequence[int], shares: Sequence[float], runs: Sequence[int]
) -> list[Case]:
    """The case of all first values, then each further value in its place, one at a time."""
    base = Case(shapes[0], tokens[0], shares[0], runs[0])
    cases = [base]
    cases += [replace(base, tokens=value) for value in tokens[1:]]
    cases += [replace(base, share=value) for value in shares[1:]]
    cases += [replace(base, run=value) for value in runs[1:]]
    cases += [replace(base, shape=value) for value in shapes[1:]]
    return list(dict.fromkeys(cases))


def shape(text: str) -> Shape:
    """An argument type: a name of ``SHAPES``, or hidden and FFN size as ``2048,8192``."""
    if text in SHAPES:
        return Shape(text, *SHAPES[text])
    sizes = text.split(",")
    if len(sizes) != 2 or not all(size.isdigit() and int(size) for size in sizes):
        raise argparse.ArgumentTypeError(f"{text} is none of {', '.join(SHAPES)}, nor HIDDEN,FFN")
    return Shape(text, int(sizes[0]), int(sizes[1]))


def share(text: str) -> float:
    """An argument type: from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} must be from 0 to 1")
    return value
