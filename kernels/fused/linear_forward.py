"""x W^T + b of both modalities in one launch, x normed on the way where asked."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from lightning_mono.kernels.fused.launch import Launch, Tile
from lightning_mono.kernels.fused.linear_tiles import (
    GROUP,
    Pair,
    Projected,
    Rows,
    add,
    part_of,
    precision,
    tile_for,
)
from lightning_mono.kernels.fused.tiles import dot, find_rows, place, product
from torch import Tensor


@triton.jit
def normed_product(
    acc, a, text, text_row, visual, visual_row, is_visual, read, scale,
    SIZE: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """acc + (a * scale) @ w^T with a modality's w, and the mean squares of the rows of ``a``."""
    if text.dtype == visual.dtype:
        w = visual if is_visual else text
        row = visual_row if is_visual else text_row
        acc, squares = _normed_product(acc, a, w, row, read, scale, SIZE, ROWS, DEPTH, PRECISION)
    elif is_visual:
        acc, squares = _normed_product(
            acc, a, visual, visual_row, read, scale, SIZE, ROWS, DEPTH, PRECISION
        )
    else:
        acc, squares = _normed_product(
            acc, a, text, text_row, read, scale, SIZE, ROWS, DEPTH, PRECISION
        )
    return acc, squares


@triton.jit
def _normed_product(
    acc, a, w, w_row, read, scale,
    SIZE: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One pass over the rows for both: the factor 1 / rms of a row comes out of its sums."""
    inner = tl.arange(0, DEPTH)
    w += inner[:, None] + read[None, :] * w_row
    scale += inner
    squares = tl.full((ROWS,), 0.0, tl.float32)
    for _ in range(0, SIZE, DEPTH):
        wide = tl.load(a).to(tl.float32)
        squares += tl.reduce(wide * wide, 1, add)
        scaled = (wide * tl.load(scale).to(tl.float32)[None, :]).to(a.dtype.element_ty)
        acc = dot(scaled, tl.load(w).to(scaled.dtype), acc, PRECISION)
        a += DEPTH
        w += DEPTH
        scale += DEPTH
    return acc, squares / SIZE


@triton.jit(do_not_specialize=["n_text", "n_visual"])
def linear_kernel(
    x, x_row, y, inverse, eps, text_rows, visual_rows, n_text, n_visual,
    text_0, text_0_row, text_1, text_1_row, text_2, text_2_row,
    visual_0, visual_0_row, visual_1, visual_1_row, visual_2, visual_2_row,
    text_0_bias, text_1_bias, text_2_bias, visual_0_bias, visual_1_bias, visual_2_bias,
    text_norm, visual_norm,
    WIDTH: tl.constexpr, OUT: tl.constexpr, SIZES: tl.constexpr, BEGINS: tl.constexpr,
    STARTS: tl.constexpr, COLUMN_TILES: tl.constexpr,
    TEXT_BIAS: tl.constexpr, VISUAL_BIAS: tl.constexpr, NORM: tl.constexpr,
    PRECISION: tl.constexpr, GROUP: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """A tile of y: rows of one modality, columns of one of the weights side by side."""
    row_tiles = (n_text + ROWS - 1) // ROWS + (n_visual + ROWS - 1) // ROWS
    row_tile, tile = place(tl.program_id(0), row_tiles, COLUMN_TILES, GROUP)
    rows, real, visual = find_rows(row_tile, text_rows, visual_rows, n_text, n_visual, ROWS)
    size = part_of(tile, SIZES, STARTS)
    columns = (tile - part_of(tile, STARTS, STARTS)) * COLUMNS + tl.arange(0, COLUMNS)
    read = tl.minimum(columns, size - 1)
    text = part_of(tile, (text_0, text_1, text_2), STARTS)
    text_row = part_of(tile, (text_0_row, text_1_row, text_2_row), STARTS)
    image = part_of(tile, (visual_0, visual_1, visual_2), STARTS)
    image_row = part_of(tile, (visual_0_row, visual_1_row, visual_2_row), STARTS)
    a = x + rows[:, None] * x_row + tl.arange(0, DEPTH)[None, :]
    acc = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    if NORM:
        scale = visual_norm if visual else text_norm
        acc, squares = normed_product(
            acc, a, text, text_row, image, image_row, visual, read, scale,
            WIDTH, ROWS, DEPTH, PRECISION,
        )  # fmt: skip
        factor = 1.0 / tl.sqrt(squares + eps)
        acc *= factor[:, None]
        if tile == 0:
            tl.store(inverse + rows, factor, mask=real)
    else:
        acc = product(
            acc, a, 1, text, text_row, image, image_row, visual, read,
            WIDTH, DEPTH, True, PRECISION,
        )  # fmt: skip
    if TEXT_BIAS:
        bias = part_of(tile, (text_0_bias, text_1_bias, text_2_bias), STARTS) + columns
        here = columns < (0 if visual else size)
        acc += tl.load(bias, mask=here, other=0.0).to(tl.float32)[None, :]
    if VISUAL_BIAS:
        bias = part_of(tile, (visual_0_bias, visual_1_bias, visual_2_bias), STARTS) + columns
        here = columns < (size if visual else 0)
        acc += tl.load(bias, mask=here, other=0.0).to(tl.float32)[None, :]
    at = rows[:, None] * OUT + (part_of(tile, BEGINS, STARTS) + columns)[None, :]
    tl.store(y + at, acc.to(y.dtype.element_ty), mask=real[:, None] & (columns < size)[None, :])


# No register is spilled on either, also where x is normed (tests compile for both). Two programs
# share a multiprocessor, and 128 columns leave enough of them at 1,024 tokens of hidden size 2,048.
TILES = {
    (80, torch.bfloat16): Tile(128, 128, 32, 4, 4),
    (90, torch.bfloat16): Tile(128, 128, 64, 8, 3),
    (80, torch.float32): Tile(64, 64, 32, 4, 3),
    (90, torch.float32): Tile(64, 64, 16, 4, 4),
}


def forward(x: Tensor, rows: Rows, pair: Pair, eps: float) -> Projected:
    """The one launch of many rows, or of rows of both modalities."""
    text, visual = pair.text, pair.visual
    tile = tile_for(TILES, x, x.shape[1])
    y, inverse = pair.results(x)
    columns = text.columns(tile.columns)
    arguments = {
        "x": x, "x_row": x.stride(0), "y": y, "inverse": inverse, "eps": eps,
        **rows.arguments(), **text.arguments("text"), **visual.arguments("visual"),
        **text.more("text", x), **visual.more("visual", x), **columns,
        "WIDTH": text.width, "OUT": text.out, "NORM": pair.normed,
        "TEXT_BIAS": bool(text.biases), "VISUAL_BIAS": bool(visual.biases),
        "PRECISION": precision(x), "GROUP": GROUP,
    }  # fmt: skip
    grid = (rows.tiles(tile.rows) * columns["COLUMN_TILES"],)
    return [Launch(linear_kernel, grid, arguments, tile)], y, inverse
