"""How far one set of weights is from another: as an angle, and as a length."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mono.params import grouped

Weights = Mapping[str, Tensor]
"""A model's parameters by name (docs/architecture.md)."""

KINDS: Mapping[str, str] = {
    "attention_norm": "attention norm",
    "attention.qkv.q": "q",
    "attention.qkv.k": "k",
    "attention.qkv.v": "v",
    "attention.qkv.q_norm": "q norm",
    "attention.qkv.k_norm": "k norm",
    "attention.out": "out",
    "ffn_norm": "FFN norm",
    "ffn.gate": "gate",
    "ffn.up": "up",
    "ffn.down": "down",
}
"""What an expert is made of, in the order of the pass -> how it is called in figures."""

_VISUAL = re.compile(r"layers\.(\d+)\.([\w.]+?)\.visual(\.\w+)?\.(weight|bias)")


@dataclass(frozen=True)
class Moved:
    """How far weights are from others, all of them taken as one vector.

    Attributes:
        cosine: of the angle between the two; 1 where they point the same way.
        distance: Euclidean, relative to the length of the others: 0 if and only if they are equal,
            1 for as far as those are from nothing.
    """

    cosine: float
    distance: float


Experts = Mapping[tuple[int, str], Moved]
"""(layer, one of :data:`KINDS`) -> how far the visual expert is from its text expert."""


@torch.no_grad()
def between(pairs: Iterable[tuple[Tensor, Tensor]]) -> Moved:
    """How far weights are from what they were.

    Args:
        pairs: (now, before) of the same shape. Sums are taken in fp64.
    """
    dot = now_square = before_square = gap = 0.0
    for now, before in pairs:
        a, b = now.double().flatten(), before.double().flatten()
        dot += float(a @ b)
        now_square += float(a @ a)
        before_square += float(b @ b)
        gap += float((a - b).square().sum())
    if gap == 0:
        return Moved(1.0, 0.0)
    lengths = math.sqrt(now_square * before_square)
    cosine = dot / lengths if lengths else math.nan
    return Moved(cosine, math.sqrt(gap / before_square) if before_square else math.inf)


def from_text(weights: Weights, origin: Weights | None = None) -> Experts:
    """How far each visual expert is from the text expert that it was copied from.

    A bias belongs to its matrix.

    Args:
        weights: of the model.
        origin: those that the experts were copied from; by default the model's own text weights,
            which are the same as long as none of them has trained.

    Raises:
        ValueError: the origin lacks a text weight, or has it in another shape.
    """
    source = weights if origin is None else origin
    pairs: dict[tuple[int, str], list[tuple[Tensor, Tensor]]] = {}
    for name, value in weights.items():
        match = _VISUAL.fullmatch(name)
        if match is None:
            continue
        kind = f"{match[2]}{match[3] or ''}"
        text = name.replace(".visual", ".text", 1)
        if text not in source or source[text].shape != value.shape:
            raise ValueError(f"{name}: the origin has no {text} of shape {tuple(value.shape)}")
        pairs.setdefault((int(match[1]), kind), []).append((value, source[text]))
    order = list(KINDS)
    found = sorted(pairs, key=lambda place: (place[0], order.index(place[1])))
    return {place: between(pairs[place]) for place in found}


def by_group(now: Weights, before: Weights) -> dict[str, Moved]:
    """How far each parameter group has moved; both are of the same model."""
    return {
        group: between([(now[name], before[name]) for name in names])
        for group, names in grouped(now).items()
    }
