"""The backward pass of the FFN of both modalities, in at most four launches.

1. The gradients of gate and up, through the way down and the derivative of SwiGLU.
2. The gradient of the input.
3. The gradient of the down projection, and 4. those of gate and up, of what trains.
"""

# In kernels, constants are in capitals and arguments have no Python types.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from lightning_mono.kernels.fused.ffn_forward import Call, Weights
from lightning_mono.kernels.fused.launch import Launch, Tile
from lightning_mono.kernels.fused.tiles import (
    dot,
    find_columns,
    find_rows,
    place,
    product,
    sigmoid,
    two_products,
)
from lightning_mono.kernels.fused.tuning import Tiles
from torch import Tensor


class Needs(NamedTuple):
    """Which gradients are asked for."""

    x: bool
    text_in: bool
    """Of the gate or up projection."""
    text_down: bool
    visual_in: bool
    visual_down: bool


@triton.jit(do_not_specialize=["n_text", "n_visual"])
def swiglu_gradient_kernel(
    dy, dy_row, dy_column, x, x_row, x_column, gate, up,
    text_rows, visual_rows, n_text, n_visual,
    text_gate, text_up, text_down, visual_gate, visual_up, visual_down,
    h, d_gate, d_up,
    HIDDEN: tl.constexpr, FFN: tl.constexpr, SAVED: tl.constexpr, WITH_H: tl.constexpr,
    PRECISION: tl.constexpr, GROUP: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Gradients of gate and up from dy; gate and up are read, or computed again from x.

    WITH_H also writes silu(gate) * up again, from which the down projection learns.
    """
    row_tiles = (n_text + ROWS - 1) // ROWS + (n_visual + ROWS - 1) // ROWS
    column_tiles = (FFN + COLUMNS - 1) // COLUMNS
    tile, column_tile = place(tl.program_id(0), row_tiles, column_tiles, GROUP)
    rows, real, visual = find_rows(tile, text_rows, visual_rows, n_text, n_visual, ROWS)
    columns, read = find_columns(column_tile, FFN, COLUMNS)
    at = rows[:, None] * FFN + columns[None, :]
    keep = real[:, None] & (columns < FFN)[None, :]
    inner = tl.arange(0, DEPTH)[None, :]
    dh = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    dh = product(
        dh, dy + rows[:, None] * dy_row + inner * dy_column, dy_column,
        text_down, visual_down, visual, read, column_tile * COLUMNS,
        HIDDEN, DEPTH, False, PRECISION,
    )  # fmt: skip
    if SAVED:
        g = tl.load(gate + at, mask=keep, other=0.0).to(tl.float32)
        u = tl.load(up + at, mask=keep, other=0.0).to(tl.float32)
    else:
        g, u = two_products(
            x + rows[:, None] * x_row + inner * x_column, x_column,
            text_gate, text_up, visual_gate, visual_up, visual, read,
            HIDDEN, ROWS, COLUMNS, DEPTH, PRECISION,
        )  # fmt: skip
    s = sigmoid(g)
    tl.store(d_up + at, dh * g * s, mask=keep)
    tl.store(d_gate + at, dh * u * s * (1.0 + g * (1.0 - s)), mask=keep)
    if WITH_H:
        tl.store(h + at, g * s * u, mask=keep)


@triton.jit(do_not_specialize=["n_text", "n_visual"])
def input_gradient_kernel(
    d_gate, d_up, text_rows, visual_rows, n_text, n_visual,
    text_gate, text_up, visual_gate, visual_up, dx,
    HIDDEN: tl.constexpr, FFN: tl.constexpr, PRECISION: tl.constexpr, GROUP: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """dx = d_gate gate + d_up up."""
    row_tiles = (n_text + ROWS - 1) // ROWS + (n_visual + ROWS - 1) // ROWS
    column_tiles = (HIDDEN + COLUMNS - 1) // COLUMNS
    tile, column_tile = place(tl.program_id(0), row_tiles, column_tiles, GROUP)
    rows, real, visual = find_rows(tile, text_rows, visual_rows, n_text, n_visual, ROWS)
    columns, read = find_columns(column_tile, HIDDEN, COLUMNS)
    first = rows[:, None] * FFN + tl.arange(0, DEPTH)[None, :]
    acc = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    acc = product(
        acc, d_gate + first, 1, text_gate, visual_gate, visual, read, column_tile * COLUMNS,
        FFN, DEPTH, False, PRECISION,
    )  # fmt: skip
    acc = product(
        acc, d_up + first, 1, text_up, visual_up, visual, read, column_tile * COLUMNS,
        FFN, DEPTH, False, PRECISION,
    )  # fmt: skip
    keep = real[:, None] & (columns < HIDDEN)[None, :]
    tl.store(dx + rows[:, None] * HIDDEN + columns[None, :], acc, mask=keep)


@triton.jit(do_not_specialize=["n_text", "n_visual", "first_visual"])
def weight_gradient_kernel(
    a, second, a_row, a_column, b, b_row, b_column,
    text_rows, visual_rows, n_text, n_visual, first_visual,
    text, text_second, visual, visual_second,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr, PRECISION: tl.constexpr,
    GROUP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """The sum of a^T b over the rows of a modality, for each modality that trains.

    With two PARTS also of second^T b. A modality without rows gets zeros.
    """
    row_tiles = (HEIGHT + ROWS - 1) // ROWS
    column_tiles = (WIDTH + COLUMNS - 1) // COLUMNS
    tile, column_tile = place(tl.program_id(0), row_tiles, column_tiles, GROUP)
    is_visual = tl.program_id(1) // PARTS >= first_visual
    is_second = tl.program_id(1) % PARTS == 1
    down, i = find_columns(tile, HEIGHT, ROWS)
    across, j = find_columns(column_tile, WIDTH, COLUMNS)
    index = visual_rows if is_visual else text_rows
    count = n_visual if is_visual else n_text
    left = (second if is_second else a) + i[:, None] * a_column
    right = b + j[None, :] * b_column
    acc = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    at = tl.arange(0, DEPTH)
    rows = tl.load(index + at, mask=at < count, other=0).to(tl.int64)
    for start in range(0, count, DEPTH):
        # Row numbers are read one step before the rows, whose addresses would wait for them.
        ahead = start + DEPTH + at
        following = tl.load(index + ahead, mask=ahead < count, other=0).to(tl.int64)
        real = start + at < count
        a_block = tl.load(left + rows[None, :] * a_row, mask=real[None, :], other=0.0)
        b_block = tl.load(right + rows[:, None] * b_row, mask=real[:, None], other=0.0)
        acc = dot(a_block, b_block, acc, PRECISION)
        rows = following
    to = down[:, None] * WIDTH + across[None, :]
    keep = (down < HEIGHT)[:, None] & (across < WIDTH)[None, :]
    if is_visual:
        tl.store((visual_second if is_second else visual) + to, acc, mask=keep)
    else:
        tl.store((text_second if is_second else text) + to, acc, mask=keep)


class Backward(NamedTuple):
    """What a backward pass writes, and the launches that write it.

    Of no size are the gradients that are not asked for.
    """

    dx: Tensor
    text: Weights
    visual: Weights
    launches: list[Launch]


def backward(
    call: Call, dy: Tensor, gate: Tensor, up: Tensor, needs: Needs, tiles: Tiles
) -> Backward:
    """Allocates the gradients and plans the launches, without running them.

    Args:
        dy: gradient of the output, (tokens, hidden), of any strides, in the dtype of ``x``.
        gate, up: as the forward pass saved them, or of no rows to compute them again.
    """
    x = call.x
    dx = x.new_empty(x.shape if needs.x else 0)
    text = _like(call.text, needs.text_in, needs.text_down)
    visual = _like(call.visual, needs.visual_in, needs.visual_down)
    if len(x) == 0:
        for gradient in (*text, *visual):
            gradient.zero_()
        return Backward(dx, text, visual, [])
    learns_down = needs.text_down or needs.visual_down
    h = x.new_empty(len(x) if learns_down else 0, call.ffn)
    d_gate, d_up = x.new_empty(len(x), call.ffn), x.new_empty(len(x), call.ffn)
    launches = [_swiglu_gradient(call, dy, gate, up, h, d_gate, d_up, tiles)]
    if needs.x:
        launches.append(_input_gradient(call, d_gate, d_up, dx, tiles.input_gradient))
    if learns_down:
        trains = needs.text_down, needs.visual_down
        down = (text.down,), (visual.down,)
        launches.append(_weight_gradient(call, (dy,), h, *down, trains, tiles.weight_gradient))
    if needs.text_in or needs.visual_in:
        trains = needs.text_in, needs.visual_in
        into = text[:2], visual[:2]
        launches.append(
            _weight_gradient(call, (d_gate, d_up), x, *into, trains, tiles.weight_gradient)
        )
    return Backward(dx, text, visual, launches)


def _like(weights: Weights, into: bool, down: bool) -> Weights:
    """Room for the gradients that are asked for, in the dtype of the weights."""
    asked = zip(weights, (into, into, down), strict=True)
    return Weights(*(w.new_empty(w.shape if asks else 0) for w, asks in asked))


def _swiglu_gradient(
    call: Call,
    dy: Tensor,
    gate: Tensor,
    up: Tensor,
    h: Tensor,
    d_gate: Tensor,
    d_up: Tensor,
    tiles: Tiles,
) -> Launch:
    saved = len(gate) > 0
    tile = tiles.swiglu_gradient if saved else tiles.swiglu_gradient_again
    return Launch(
        swiglu_gradient_kernel,
        call.grid(call.ffn, tile),
        {
            **{"dy": dy, "dy_row": dy.stride(0), "dy_column": dy.stride(1)},
            **{"x": call.x, "x_row": call.x.stride(0), "x_column": call.x.stride(1)},
            **{"gate": gate, "up": up, "h": h, "d_gate": d_gate, "d_up": d_up},
            **{**call.rows(), **call.sizes(), **call.weights("gate", "up", "down")},
            **{"SAVED": saved, "WITH_H": len(h) > 0},
        },
        tile,
    )


def _input_gradient(call: Call, d_gate: Tensor, d_up: Tensor, dx: Tensor, tile: Tile) -> Launch:
    return Launch(
        input_gradient_kernel,
        call.grid(call.hidden, tile),
        {
            **{"d_gate": d_gate, "d_up": d_up, "dx": dx},
            **{**call.rows(), **call.sizes(), **call.weights("gate", "up")},
        },
        tile,
    )


def _weight_gradient(
    call: Call,
    a: tuple[Tensor, ...],
    b: Tensor,
    text: tuple[Tensor, ...],
    visual: tuple[Tensor, ...],
    trains: tuple[bool, bool],
    tile: Tile,
) -> Launch:
    """a^T b into the gradients of the modalities that train; one ``a`` for each gradient."""
    height, width = a[0].shape[1], b.shape[1]
    tiles = triton.cdiv(height, tile.rows) * triton.cdiv(width, tile.columns)
    return Launch(
        weight_gradient_kernel,
        (tiles, sum(trains) * len(a)),
        {
            **{"a": a[0], "second": a[-1], "a_row": a[0].stride(0), "a_column": a[0].stride(1)},
            **{"b": b, "b_row": b.stride(0), "b_column": b.stride(1)},
            **{"text": text[0], "text_second": text[-1]},
            **{"visual": visual[0], "visual_second": visual[-1]},
            **{"HEIGHT": height, "WIDTH": width, "PARTS": len(a), "first_visual": int(trains[0])},
            **call.rows(),
        },
        tile,
    )
