"""What a renderer makes: examples to train on, and prompts to answer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Example:
    """One sample as tokens.

    Attributes:
        id: the sample's id.
        input_ids: (tokens,) int64.
        positions: (tokens,) int64; every branch counts on from the end of the prefix.
        branches: (tokens,) int32; 0 is the shared prefix, 1 and up are the exchanges.
        supervised: (tokens,) bool; True where the token is to be predicted.
        tiles: (tiles, size, size, 3) uint8.
        dropped: exchanges that did not fit; 1 for a document that was cut.
    """

    id: str
    input_ids: np.ndarray
    positions: np.ndarray
    branches: np.ndarray
    supervised: np.ndarray
    tiles: np.ndarray
    dropped: int

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, in bytes."""
        arrays = (self.input_ids, self.positions, self.branches, self.supervised, self.tiles)
        return sum(array.nbytes for array in arrays)


@dataclass(frozen=True)
class Prompt:
    """What a model is asked.

    Attributes:
        input_ids: (tokens,) int64.
        pixel_values: (tiles, 3, size, size) float32.
        question_at: the column at which the last question begins: in the first turn behind the
            pictures that stand in front of it, later with them; 0 in a follow-up.
        questions_at: the same for the questions of all turns; what stands before one of them is
            the same whatever follows. None in a follow-up.
    """

    input_ids: np.ndarray
    pixel_values: np.ndarray
    question_at: int = 0
    questions_at: tuple[int, ...] = ()


@dataclass
class Tokens:
    """Tokens of one example as they are laid down, one entry a token in each list."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    supervised: list[bool] = field(default_factory=list)
    dropped: int = 0

    def add(self, ids: list[int], start: int, branch: int, supervised: bool) -> None:
        self.ids += ids
        self.positions += range(start, start + len(ids))
        self.branches += [branch] * len(ids)
        self.supervised += [supervised] * len(ids)
