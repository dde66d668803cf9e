"""Projections side by side: whose weights and rows there are, and how they are cut into tiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import triton
import triton.language as tl
from lightning_mono.kernels.fused.launch import Launch, Tile, fp32_precision, interpreted
from torch import Tensor

GROUP = 8
"""Row tiles that share blocks of weights in the cache."""

MOST_PARTS = 3
"""Weights that a launch has room for: query, key and value."""

INTERPRETED = Tile(32, 32, 32, 4, 1)
"""Small, so that the interpreter meets cut tiles at sizes for which it is quick."""

Projected = tuple[list[Launch], Tensor, Tensor]
"""Launches in order; y (tokens, all columns); each row's 1 / rms (tokens,), empty without norms."""


@dataclass(frozen=True)
class Rows:
    """The row numbers of each modality, (count,) int64."""

    text: Tensor
    visual: Tensor

    @property
    def counts(self) -> tuple[int, int]:
        return self.text.numel(), self.visual.numel()

    def tiles(self, rows: int) -> int:
        """How many tiles of this many rows they fill; no tile holds both modalities."""
        return sum(triton.cdiv(count, rows) for count in self.counts)

    def arguments(self) -> dict[str, Tensor | int]:
        n_text, n_visual = self.counts
        names = {"text_rows": self.text, "visual_rows": self.visual}
        return {**names, "n_text": n_text, "n_visual": n_visual}


@dataclass(frozen=True)
class Side:
    """What one modality multiplies by.

    Attributes:
        weights: (out, width) each, of one dtype; their results stand side by side.
        biases: one a weight, or none.
        norm: the weight (width,) of an RMSNorm before the product.
    """

    weights: Sequence[Tensor]
    biases: Sequence[Tensor] = ()
    norm: Tensor | None = None

    @property
    def width(self) -> int:
        return self.weights[0].shape[1]

    @property
    def out(self) -> int:
        return sum(weight.shape[0] for weight in self.weights)

    def arguments(self, name: str) -> dict[str, Tensor | int]:
        """Weights and their row strides as a kernel names them."""
        named: dict[str, Tensor | int] = {}
        for part, weight in enumerate(_filled(self.weights, self.weights[0])):
            named |= {f"{name}_{part}": weight, f"{name}_{part}_row": weight.stride(0)}
        return named

    def more(self, name: str, filler: Tensor) -> dict[str, Tensor]:
        """Biases and norm as a kernel names them; ``filler``, which it does not read, if none."""
        biases = enumerate(_filled(self.biases, filler))
        named = {f"{name}_{part}_bias": bias for part, bias in biases}
        return named | {f"{name}_norm": filler if self.norm is None else self.norm}

    def columns(self, tile: int) -> dict[str, Any]:
        """SIZES and BEGINS of the parts in columns; STARTS in column tiles, COLUMN_TILES in all."""
        sizes = [weight.shape[0] for weight in self.weights]
        *starts, tiles = accumulate((triton.cdiv(size, tile) for size in sizes), initial=0)
        begins = accumulate(sizes[:-1], initial=0)
        return {
            "SIZES": tuple(sizes),
            "BEGINS": tuple(begins),
            "STARTS": tuple(starts),
            "COLUMN_TILES": tiles,
        }


def _filled(tensors: Sequence[Tensor], filler: Tensor) -> list[Tensor]:
    return [*tensors, *[filler] * (MOST_PARTS - len(tensors))]


@dataclass(frozen=True)
class Pair:
    """Both modalities; shapes and norms are there for both alike."""

    text: Side
    visual: Side

    @classmethod
    def of(
        cls,
        text: Sequence[Tensor],
        visual: Sequence[Tensor],
        text_biases: Sequence[Tensor] = (),
        visual_biases: Sequence[Tensor] = (),
        norms: Sequence[Tensor] = (),
    ) -> Pair:
        """From tensors in the order in which operators take them."""
        text_norm, visual_norm = norms or (None, None)
        return cls(Side(text, text_biases, text_norm), Side(visual, visual_biases, visual_norm))

    @property
    def normed(self) -> bool:
        return self.text.norm is not None

    def results(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Room for y, and for 1 / rms of each row in fp32."""
        inverse = x.new_empty(x.shape[0] if self.normed else 0, dtype=torch.float32)
        return x.new_empty(x.shape[0], self.text.out), inverse

    def gradients(self, x: Tensor, trains: tuple[bool, bool]) -> list[Tensor]:
        """Room for those of text's and visual's weights, then biases: empty where none is."""
        sides = list(zip((self.text, self.visual), trains, strict=True))
        weights = [
            side.weights[0].new_empty(side.out, side.width) if train else x.new_empty(0)
            for side, train in sides
        ]
        biases = [
            side.biases[0].new_empty(side.out) if train and side.biases else x.new_empty(0)
            for side, train in sides
        ]
        return weights + biases


def tile_for(table: Mapping[tuple[int, torch.dtype], Tile], x: Tensor, inner: int = 0) -> Tile:
    """The tile of a table that suits the device of ``x``; a small one in the interpreter.

    Its depth divides ``inner``, a multiple of 16: no step of a sum over so many is cut.
    """
    tile = INTERPRETED if interpreted() else table[generation(x.device), x.dtype]
    return tile._replace(depth=math.gcd(tile.depth, inner))


def generation(device: torch.device) -> int:
    """The compute capability whose tiles a device takes: 80, or 90 from there on."""
    return 90 if torch.cuda.get_device_capability(device) >= (9, 0) else 80


def rows_contiguous(x: Tensor) -> Tensor:
    """``x``, its columns side by side in memory, where they are read 16 bytes at a time."""
    return x if x.stride(-1) == 1 else x.contiguous()


def precision(x: Tensor) -> str:
    """How products of ``x`` are taken; only fp32 leaves a choice."""
    return fp32_precision() if x.dtype == torch.float32 else "tf32"


@triton.jit
def part_of(tile, values, STARTS: tl.constexpr):
    """The one of ``values``, one a part, that a column tile belongs to."""
    value = values[0]
    for part in tl.static_range(1, len(STARTS)):
        value = values[part] if tile >= STARTS[part] else value
    return value


@triton.jit
def add(a, b):
    return a + b
