"""A model's parameters without their numbers: names, groups, layers and shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from lightning_mono.model import MonoConfig, MonoModel
from lightning_mono.model.meta import on_meta
from lightning_mono.params import QUANTISABLE, grouped


@dataclass(frozen=True)
class Weight:
    """A parameter.

    Attributes:
        name: in the model.
        group: that it belongs to.
        layer: of the decoder that it is in; None outside them.
        shape: of it.
    """

    name: str
    group: str
    layer: int | None
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)

    @property
    def unit(self) -> str | None:
        """The layer that it is sharded with, a vision transformer's or the decoder's."""
        found = re.match(r"(patchifier\.vit\.)?layers\.\d+", self.name)
        return found[0] if found else None

    @property
    def multiplied(self) -> bool:
        """Whether it is a matrix that rows are multiplied with, as norms and biases are not."""
        return len(self.shape) == 2 or self.name.endswith("conv.weight")

    @property
    def rounded(self) -> bool:
        """Whether ``model.quantize`` rounds it."""
        return self.group in QUANTISABLE and len(self.shape) == 2


def weights_of(config: MonoConfig) -> tuple[Weight, ...]:
    """All parameters of a model, of which none is made: it stands on the meta device."""
    with on_meta():
        model = MonoModel(config)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    return tuple(
        Weight(name, group, _layer(name), shapes[name])
        for group, names in grouped(shapes).items()
        for name in names
    )


def numbers_by_group(weights: Iterable[Weight]) -> dict[str, int]:
    """Parameter group -> how many numbers it holds, in the order of the groups."""
    counts: dict[str, int] = {}
    for weight in weights:
        counts[weight.group] = counts.get(weight.group, 0) + weight.numbers
    return counts


def _layer(name: str) -> int | None:
    return int(name.split(".")[1]) if name.startswith("layers.") else None
