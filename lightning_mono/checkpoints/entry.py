"""One tensor of a model folder, and those of a model that it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter

from torch import Tensor

Tensors = Mapping[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Entry:
    """A stored tensor.

    Attributes:
        name: in the files.
        shape: in the files.
        split: the stored tensor to those of ours that it holds, by name.
        join: the inverse, given all of ours.
    """

    name: str
    shape: tuple[int, ...]
    split: Callable[[Tensor], dict[str, Tensor]]
    join: Callable[[Tensors], Tensor]


def as_it_is(ours: str, theirs: str, shapes: Shapes) -> Entry:
    """A tensor of ours that is stored alone and in its own shape."""
    return Entry(theirs, shapes[ours], partial(_named, ours), itemgetter(ours))


def _named(name: str, value: Tensor) -> dict[str, Tensor]:
    return {name: value}
