"""The shapes of decoding: up to 64 rows of one modality, for which reading the weights is the work.

A product of so few rows fills few tiles, so its sum is cut in splits that run side by side. Each
writes its share in fp32 and a second launch adds the shares in order: no atomics, and the same
numbers in every run, since the splits follow from the shape alone. The rows are all rows: no index
is read, and the absent modality costs nothing.
"""

# In kernels, constants are in capitals and arguments have no Python types.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from lightning_mono.kernels.fused.launch import Launch, Tile, interpreted
from lightning_mono.kernels.fused.linear_tiles import (
    Pair,
    Projected,
    Rows,
    Side,
    add,
    fitted,
    part_of,
    precision,
    rows_contiguous,
    weight_of,
)
from lightning_mono.kernels.fused.tiles import dot, find_columns, sigmoid
from lightning_mono.kernels.fused.weights import height, matrices, rounded
from torch import Tensor

MOST_ROWS = 64
"""Above this many rows, products are as fast as weights can be read: tiles as in training."""

PROGRAMS = 264
"""Programs to fill a device with: two for each of the 132 multiprocessors of an H100."""


NARROW = {torch.bfloat16: (32, 64, 4, 4), torch.float32: (32, 32, 8, 4)}
"""Columns, depth, warps and stages: 16 KiB and more on their way to each multiprocessor."""

SUM = Tile(1, 512, 1, 4, 1)


@triton.jit
def share_kernel(
    x, x_row, n_rows, shares, squares,
    weights, weights_norm,
    WIDTH: tl.constexpr, OUT: tl.constexpr, SIZES: tl.constexpr, BEGINS: tl.constexpr,
    STARTS: tl.constexpr, SPLIT: tl.constexpr, NORM: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """All rows by a tile of columns, over SPLIT terms of the sum."""
    tile, split = tl.program_id(0), tl.program_id(1)
    rows = tl.arange(0, ROWS)
    inner = split * SPLIT + tl.arange(0, DEPTH)
    size = part_of(tile, SIZES, STARTS)
    columns = (tile - part_of(tile, STARTS, STARTS)) * COLUMNS + tl.arange(0, COLUMNS)
    read = tl.minimum(columns, size - 1)
    w = weight_of(tile, weights, STARTS)
    at = w.at + inner[:, None] + read[None, :] * w.row
    a = x + tl.minimum(rows, n_rows - 1)[:, None] * x_row + inner[None, :]
    scale = weights_norm + inner
    acc = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    square = tl.full((ROWS,), 0.0, tl.float32)
    for start in range(split * SPLIT, tl.minimum((split + 1) * SPLIT, WIDTH), DEPTH):
        a_block = tl.load(a)
        if NORM:
            wide = a_block.to(tl.float32)
            square += tl.reduce(wide * wide, 1, add)
            wide *= tl.load(scale).to(tl.float32)[None, :]
            a_block = wide.to(a_block.dtype)
        if w.scales is None:
            w_block = tl.load(at)
            at += DEPTH
        else:
            w_block = tl.trans(rounded(w, read, start, DEPTH, False))
        acc = dot(a_block, w_block.to(a_block.dtype), acc, PRECISION)
        a += DEPTH
        scale += DEPTH
    place = split * n_rows + rows
    if NORM:
        tl.store(squares + place, square, mask=rows < (n_rows if tile == 0 else 0))
    at = place[:, None] * OUT + (part_of(tile, BEGINS, STARTS) + columns)[None, :]
    tl.store(shares + at, acc, mask=(rows < n_rows)[:, None] & (columns < size)[None, :])


@triton.jit
def sum_kernel(
    shares, squares, y, inverse, eps, n_rows, biases,
    WIDTH: tl.constexpr, OUT: tl.constexpr, SIZES: tl.constexpr, BEGINS: tl.constexpr,
    SPLITS: tl.constexpr, NORM: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """One row's splits, added in order; then the norm's factor and the bias."""
    row, columns = tl.program_id(0), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < OUT
    total = tl.full((COLUMNS,), 0.0, tl.float32)
    square = 0.0
    for split in tl.static_range(SPLITS):
        place = split * n_rows + row
        total += tl.load(shares + place * OUT + columns, mask=inside, other=0.0)
        if NORM:
            square += tl.load(squares + place)
    if NORM:
        factor = 1.0 / tl.sqrt(square / WIDTH + eps)
        total *= factor
        tl.store(inverse + row, factor)
    if biases is not None:
        for part in tl.static_range(len(SIZES)):
            at = columns - BEGINS[part]
            here = (at >= 0) & (at < SIZES[part])
            total += tl.load(biases[part] + at, mask=here, other=0.0).to(tl.float32)
    tl.store(y + row * OUT + columns, total.to(y.dtype.element_ty), mask=inside)


@triton.jit
def gate_up_rows_kernel(
    x, x_row, n_rows, gate, up, h,
    WIDTH: tl.constexpr, OUT: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """h = silu(x gate^T) * (x up^T) of all rows; so many columns need no splits."""
    rows, inner = tl.arange(0, ROWS), tl.arange(0, DEPTH)
    columns, read = find_columns(tl.program_id(0), OUT, COLUMNS)
    a = x + tl.minimum(rows, n_rows - 1)[:, None] * x_row + inner[None, :]
    gate_at = gate.at + inner[:, None] + read[None, :] * gate.row
    up_at = up.at + inner[:, None] + read[None, :] * up.row
    g = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    u = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    for start in range(0, WIDTH, DEPTH):
        a_block = tl.load(a + start)
        if gate.scales is None:
            g_block = tl.load(gate_at + start)
            u_block = tl.load(up_at + start)
        else:
            g_block = tl.trans(rounded(gate, read, start, DEPTH, False))
            u_block = tl.trans(rounded(up, read, start, DEPTH, False))
        g = dot(a_block, g_block.to(a_block.dtype), g, PRECISION)
        u = dot(a_block, u_block.to(a_block.dtype), u, PRECISION)
    at = rows[:, None] * OUT + columns[None, :]
    keep = (rows < n_rows)[:, None] & (columns < OUT)[None, :]
    tl.store(h + at, (g * sigmoid(g) * u).to(h.dtype.element_ty), mask=keep)


def suits(n_text: int, n_visual: int) -> bool:
    """Whether a batch is served here: few rows, all of one modality."""
    return min(n_text, n_visual) == 0 and 0 < n_text + n_visual <= MOST_ROWS


def projections(x: Tensor, rows: Rows, pair: Pair, eps: float) -> Projected:
    """The two launches of few rows of one modality."""
    y, inverse = pair.results(x)
    side = pair.text if rows.text.numel() else pair.visual
    return side_launches(x, side, y, inverse, eps), y, inverse


def side_launches(x: Tensor, side: Side, y: Tensor, inverse: Tensor, eps: float) -> list[Launch]:
    """Splits of the sums, and their sum: y (rows, all columns) from x (rows, width)."""
    tile = _tile(x)
    columns = side.columns(tile.columns)
    split = _split(side.width, columns["COLUMN_TILES"], tile.depth)
    splits = triton.cdiv(side.width, split)
    shares = x.new_empty(splits, x.shape[0], side.out, dtype=torch.float32)
    squares = x.new_empty(splits, x.shape[0], dtype=torch.float32)
    common = {
        "n_rows": x.shape[0], "shares": shares, "squares": squares, "NORM": side.norm is not None,
        "WIDTH": side.width, "OUT": side.out, **columns,
    }  # fmt: skip
    grid = (common.pop("COLUMN_TILES"), splits)
    arguments = side.arguments("weights", x)
    biases = arguments.pop("weights_biases")
    share = {
        **common, **arguments, "x": x, "x_row": x.stride(0),
        "SPLIT": split, "PRECISION": precision(x),
    }  # fmt: skip
    del common["STARTS"]
    total = {
        **common, "y": y, "inverse": inverse, "eps": eps, "biases": biases, "SPLITS": splits,
    }  # fmt: skip
    return [
        Launch(share_kernel, grid, share, tile),
        Launch(sum_kernel, (x.shape[0], triton.cdiv(side.out, SUM.columns)), total, SUM),
    ]


def ffn_launches(
    x: Tensor, weights: Sequence[Tensor], scales: Sequence[Tensor] = ()
) -> tuple[list[Launch], Tensor]:
    """The three launches of :func:`ffn`: gate, up and SwiGLU; the way down in two. And y."""
    tile, hidden = _tile(x), x.shape[1]
    width = height(weights[0], hidden)
    gate, up, _ = matrices(weights, (hidden, hidden, width), scales)
    h, y = x.new_empty(x.shape[0], width), x.new_empty(x.shape)
    arguments = {
        "x": x, "x_row": x.stride(0), "n_rows": x.shape[0], "gate": gate, "up": up, "h": h,
        "WIDTH": hidden, "OUT": width, "PRECISION": precision(x),
    }  # fmt: skip
    grid = (triton.cdiv(width, tile.columns),)
    down = Side(weights[2:], width, scales=scales[2:])
    return [
        Launch(gate_up_rows_kernel, grid, arguments, tile),
        *side_launches(h, down, y, y, 0.0),
    ], y


@torch.library.custom_op("lightning_mono::ffn_decode", mutates_args=())
def ffn(x: Tensor, weights: Sequence[Tensor], scales: Sequence[Tensor]) -> Tensor:
    """down(silu(gate(x)) * up(x)) of 1 to 64 rows, without gradients.

    Args:
        x: (rows, hidden).
        weights: gate, up and down of the modality that all rows have, or their codes.
        scales: of the codes; none where the weights are plain.
    """
    launches, y = ffn_launches(rows_contiguous(x), weights, scales)
    for launch in launches:
        launch.run()
    return y


@ffn.register_fake
def _(x: Tensor, weights: Sequence[Tensor], scales: Sequence[Tensor]) -> Tensor:
    return x.new_empty(x.shape)


def _tile(x: Tensor) -> Tile:
    """All rows, at least the 16 that a tensor core takes; narrow columns, which fill a device."""
    tile = Tile(max(16, triton.next_power_of_2(x.shape[0])), *NARROW[x.dtype])
    if interpreted():
        tile = tile._replace(columns=32, depth=16)  # Small tests have boundaries.
    return fitted(tile, x.shape[1])


def _split(width: int, column_tiles: int, depth: int) -> int:
    """Terms of a split, whole steps: so many splits that programs fill a device."""
    steps = width // depth
    splits = min(steps, max(1, round(PROGRAMS / column_tiles)))
    return triton.cdiv(steps, splits) * depth
