"""The FFN of both modalities in two launches: gate, up and SwiGLU; then the way down."""

# In kernels, constants are in capitals and arguments have no Python types.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import triton
import triton.language as tl
from lightning_mono.kernels.fused.launch import Launch, Tile, fp32_precision, multiprocessors
from lightning_mono.kernels.fused.tiles import (
    find_columns,
    find_rows,
    place,
    product,
    sigmoid,
    two_products,
)
from lightning_mono.kernels.fused.tuning import Tiles, ffn_shape
from lightning_mono.kernels.fused.weights import Matrix, matrices
from torch import Tensor

GROUP = 8
"""Row tiles that share blocks of weights in the cache."""

RESIDENT = 2
"""Programs of gate and up for each multiprocessor: as many as its registers hold of them."""


class Weights(NamedTuple):
    """The FFN weights of one modality: gate and up (ffn, hidden), down (hidden, ffn)."""

    gate: Tensor
    up: Tensor
    down: Tensor


class Call(NamedTuple):
    """What the FFN is called with.

    Attributes:
        x: (tokens, hidden), of any strides; its dtype is that of the computation.
        text_rows, visual_rows: ascending row numbers of each modality, together every row once.
        text, visual: the weights of each, of any dtype and of any step between their rows; those
            of the text may be codes.
        text_scales: of the text's codes; none where its weights are plain.
    """

    x: Tensor
    text_rows: Tensor
    visual_rows: Tensor
    text: Weights
    visual: Weights
    text_scales: Sequence[Tensor] = ()

    @property
    def rounded(self) -> bool:
        return len(self.text_scales) > 0

    @property
    def ffn(self) -> int:
        return self.visual.gate.shape[0]

    @property
    def hidden(self) -> int:
        return self.visual.gate.shape[1]

    @property
    def shape(self) -> str:
        """What tiles are measured for."""
        return ffn_shape(self.hidden, self.ffn, rounded=self.rounded)

    def grid(self, columns: int, tile: Tile) -> tuple[int]:
        """Programs that cover the rows, one modality to a tile, and so many columns."""
        text, visual = (triton.cdiv(len(r), tile.rows) for r in (self.text_rows, self.visual_rows))
        return ((text + visual) * triton.cdiv(columns, tile.columns),)

    def rows(self) -> dict[str, Any]:
        """Rows, sizes and precision as arguments of a kernel."""
        return {
            **{"text_rows": self.text_rows, "n_text": len(self.text_rows)},
            **{"visual_rows": self.visual_rows, "n_visual": len(self.visual_rows)},
            **{"PRECISION": fp32_precision(), "GROUP": GROUP},
        }

    def sizes(self) -> dict[str, int]:
        return {"HIDDEN": self.hidden, "FFN": self.ffn}

    def weights(self, *names: str) -> dict[str, Matrix]:
        """Weights of both modalities as arguments."""
        arguments: dict[str, Matrix] = {}
        for modality, owned, scales in (
            ("text", self.text, self.text_scales),
            ("visual", self.visual, ()),
        ):
            widths = self.hidden, self.hidden, self.ffn
            named = zip(Weights._fields, matrices(owned, widths, scales), strict=True)
            arguments |= {f"{modality}_{name}": w for name, w in named if name in names}
        return arguments


@triton.jit(do_not_specialize=["n_text", "n_visual"])
def gate_up_kernel(
    x, x_row, x_column, text_rows, visual_rows, n_text, n_visual,
    text_gate, text_up, visual_gate, visual_up, h, gate, up,
    HIDDEN: tl.constexpr, FFN: tl.constexpr, SAVE: tl.constexpr, PRECISION: tl.constexpr,
    GROUP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """h = silu(x gate^T) * (x up^T), and with SAVE both factors, at the tokens' own rows.

    One grid for the tiles of both modalities: each program takes every so many-th of them.
    """
    row_tiles = (n_text + ROWS - 1) // ROWS + (n_visual + ROWS - 1) // ROWS
    column_tiles = (FFN + COLUMNS - 1) // COLUMNS
    for turn in range(tl.program_id(0), row_tiles * column_tiles, tl.num_programs(0)):
        tile, column_tile = place(turn, row_tiles, column_tiles, GROUP)
        rows, real, visual = find_rows(tile, text_rows, visual_rows, n_text, n_visual, ROWS)
        columns, read = find_columns(column_tile, FFN, COLUMNS)
        a = x + rows[:, None] * x_row + tl.arange(0, DEPTH)[None, :] * x_column
        g, u = two_products(
            a, x_column, text_gate, text_up, visual_gate, visual_up, visual, read,
            HIDDEN, ROWS, COLUMNS, DEPTH, PRECISION,
        )  # fmt: skip
        at = rows[:, None] * FFN + columns[None, :]
        keep = real[:, None] & (columns < FFN)[None, :]
        tl.store(h + at, g * sigmoid(g) * u, mask=keep)
        if SAVE:
            tl.store(gate + at, g, mask=keep)
            tl.store(up + at, u, mask=keep)


@triton.jit(do_not_specialize=["n_text", "n_visual"])
def down_kernel(
    h, text_rows, visual_rows, n_text, n_visual,
    text_down, visual_down, y,
    HIDDEN: tl.constexpr, FFN: tl.constexpr, PRECISION: tl.constexpr, GROUP: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """y = h down^T, from and to the tokens' own rows."""
    row_tiles = (n_text + ROWS - 1) // ROWS + (n_visual + ROWS - 1) // ROWS
    column_tiles = (HIDDEN + COLUMNS - 1) // COLUMNS
    tile, column_tile = place(tl.program_id(0), row_tiles, column_tiles, GROUP)
    rows, real, visual = find_rows(tile, text_rows, visual_rows, n_text, n_visual, ROWS)
    columns, read = find_columns(column_tile, HIDDEN, COLUMNS)
    a = h + rows[:, None] * FFN + tl.arange(0, DEPTH)[None, :]
    acc = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    acc = product(
        acc, a, 1, text_down, visual_down, visual, read, column_tile * COLUMNS,
        FFN, DEPTH, True, PRECISION,
    )  # fmt: skip
    keep = real[:, None] & (columns < HIDDEN)[None, :]
    tl.store(y + rows[:, None] * HIDDEN + columns[None, :], acc, mask=keep)


class Forward(NamedTuple):
    """What a forward pass writes, and the launches that write it; of no size what is not saved."""

    y: Tensor
    gate: Tensor
    up: Tensor
    launches: list[Launch]


def forward(call: Call, tiles: Tiles, *, save: bool) -> Forward:
    """Allocates the results and plans the launches, without running them.

    Args:
        save: whether the backward pass will want ``gate`` and ``up``, (tokens, ffn) each.
    """
    x = call.x
    h, y = x.new_empty(len(x), call.ffn), x.new_empty(len(x), call.hidden)
    gate, up = (x.new_empty(len(x) if save else 0, call.ffn) for _ in range(2))
    if len(x) == 0:
        return Forward(y, gate, up, [])
    (every,) = call.grid(call.ffn, tiles.gate_up)
    into = Launch(
        gate_up_kernel,
        (min(every, RESIDENT * multiprocessors(x.device)),),
        {
            **{"x": x, "x_row": x.stride(0), "x_column": x.stride(1)},
            **{"h": h, "gate": gate, "up": up, "SAVE": save},
            **{**call.rows(), **call.sizes(), **call.weights("gate", "up")},
        },
        tiles.gate_up,
    )
    out = Launch(
        down_kernel,
        call.grid(call.hidden, tiles.down),
        {"h": h, "y": y, **call.rows(), **call.sizes(), **call.weights("down")},
        tiles.down,
    )
    return Forward(y, gate, up, [into, out])
