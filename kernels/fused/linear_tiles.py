"""Projections side by side: whose weights and rows there are, and how they are cut into tiles."""

# In kernels, constants are in capitals and arguments have no Python types.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import triton
import triton.language as tl
from lightning_mono.kernels.fused.launch import Launch, Tile, fp32_precision
from lightning_mono.kernels.fused.weights import Matrix, height, matrices
from torch import Tensor

GROUP = 8
"""Row tiles that share blocks of weights in the cache."""

MOST_PARTS = 3
"""Weights that a launch has room for: query, key and value."""

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
        weights: (out, width) each, of one dtype, or their codes; results stand side by side.
        width: of the rows.
        biases: one a weight, or none.
        norm: the weight (width,) of an RMSNorm before the product.
        scales: of the codes; none where the weights are plain.
    """

    weights: Sequence[Tensor]
    width: int
    biases: Sequence[Tensor] = ()
    norm: Tensor | None = None
    scales: Sequence[Tensor] = ()

    @property
    def sizes(self) -> list[int]:
        """Columns of the result that each weight makes."""
        return [height(weight, self.width) for weight in self.weights]

    @property
    def out(self) -> int:
        return sum(self.sizes)

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """The weights as kernels read them, MOST_PARTS of them."""
        return _filled(matrices(self.weights, [self.width] * len(self.weights), self.scales))

    def arguments(self, name: str, filler: Tensor) -> dict[str, Any]:
        """Weights, biases and norm as a kernel names them; ``filler``, unread, where no norm is."""
        return {
            name: self.matrices,
            f"{name}_biases": _filled(self.biases) if self.biases else None,
            f"{name}_norm": filler if self.norm is None else self.norm,
        }

    def columns(self, tile: int) -> dict[str, Any]:
        """SIZES and BEGINS of the parts in columns; STARTS in column tiles, COLUMN_TILES in all."""
        sizes = self.sizes
        *starts, tiles = accumulate((triton.cdiv(size, tile) for size in sizes), initial=0)
        begins = accumulate(sizes[:-1], initial=0)
        return {
            "SIZES": tuple(sizes),
            "BEGINS": tuple(begins),
            "STARTS": tuple(starts),
            "COLUMN_TILES": tiles,
        }


def _filled(values: Sequence[Any]) -> tuple[Any, ...]:
    return (*values, *[values[0]] * (MOST_PARTS - len(values)))


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
        text_scales: Sequence[Tensor] = (),
    ) -> Pair:
        """From tensors in the order in which operators take them."""
        text_norm, visual_norm = norms or (None, None)
        width = visual[0].shape[1]  # Visual weights are plain.
        return cls(
            Side(text, width, text_biases, text_norm, text_scales),
            Side(visual, width, visual_biases, visual_norm),
        )

    @property
    def normed(self) -> bool:
        return self.text.norm is not None

    @property
    def rounded(self) -> bool:
        return len(self.text.scales) > 0

    @property
    def shape(self) -> str:
        """What tiles are measured for, beside device and dtype."""
        outs = "+".join(map(str, self.visual.sizes))
        return (
            f"linear {self.visual.width}x{outs}{' rounded' * self.rounded}{' normed' * self.normed}"
        )

    def results(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Room for y, and for 1 / rms of each row in fp32."""
        inverse = x.new_empty(x.shape[0] if self.normed else 0, dtype=torch.float32)
        return x.new_empty(x.shape[0], self.visual.out), inverse

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


def fitted(tile: Tile, inner: int) -> Tile:
    """A tile whose depth divides ``inner``, a multiple of 16: no step of so long a sum is cut."""
    return tile._replace(depth=math.gcd(tile.depth, inner))


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
def weight_of(tile, weights, STARTS: tl.constexpr):
    """The one of ``weights`` that a column tile belongs to; all are of one dtype."""
    at, row, scales = weights[0].at, weights[0].row, weights[0].scales
    for part in tl.static_range(1, len(STARTS)):
        later = tile >= STARTS[part]
        at = weights[part].at if later else at
        row = weights[part].row if later else row
        if weights[part].scales is not None:
            scales = weights[part].scales if later else scales
    return Matrix(at, row, scales)


@triton.jit
def add(a, b):
    return a + b
