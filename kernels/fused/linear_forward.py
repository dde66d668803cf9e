"""x W^T + b of both modalities in one launch, x normed on the way where asked."""

# In kernels, constants are in capitals and arguments have no Python types.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl
from lightning_mono.kernels.fused.launch import Launch, Tile
from lightning_mono.kernels.fused.linear_tiles import (
    GROUP,
    Pair,
    Projected,
    Rows,
    add,
    fitted,
    part_of,
    precision,
    weight_of,
)
from lightning_mono.kernels.fused.tiles import dot, find_rows, place, product
from lightning_mono.kernels.fused.weights import chosen, rounded
from torch import Tensor


@triton.jit
def normed_product(
    acc, a, text, visual, is_visual, read, scale,
    SIZE: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """acc + (a * scale) @ w^T with a modality's w, and the mean squares of the rows of ``a``."""
    if text.at.dtype == visual.at.dtype:
        w = chosen(text, visual, is_visual)
        acc, squares = _normed_product(acc, a, w, read, scale, SIZE, ROWS, DEPTH, PRECISION)
    elif is_visual:
        acc, squares = _normed_product(acc, a, visual, read, scale, SIZE, ROWS, DEPTH, PRECISION)
    else:
        acc, squares = _normed_product(acc, a, text, read, scale, SIZE, ROWS, DEPTH, PRECISION)
    return acc, squares


@triton.jit
def _normed_product(
    acc, a, w, read, scale,
    SIZE: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One pass over the rows for both: the factor 1 / rms of a row comes out of its sums."""
    inner = tl.arange(0, DEPTH)
    at = w.at + inner[:, None] + read[None, :] * w.row
    scale += inner
    squares = tl.full((ROWS,), 0.0, tl.float32)
    for start in range(0, SIZE, DEPTH):
        wide = tl.load(a).to(tl.float32)
        squares += tl.reduce(wide * wide, 1, add)
        scaled = (wide * tl.load(scale).to(tl.float32)[None, :]).to(a.dtype.element_ty)
        if w.scales is None:
            w_block = tl.load(at)
            at += DEPTH
        else:
            w_block = tl.trans(rounded(w, read, start, DEPTH, False))
        acc = dot(scaled, w_block.to(scaled.dtype), acc, PRECISION)
        a += DEPTH
        scale += DEPTH
    return acc, squares / SIZE


@triton.jit(do_not_specialize=["n_text", "n_visual"])
def linear_kernel(
    x, x_row, y, inverse, eps, text_rows, visual_rows, n_text, n_visual,
    text, visual, text_biases, visual_biases, text_norm, visual_norm,
    WIDTH: tl.constexpr, OUT: tl.constexpr, SIZES: tl.constexpr, BEGINS: tl.constexpr,
    STARTS: tl.constexpr, COLUMN_TILES: tl.constexpr,
    NORM: tl.constexpr, PRECISION: tl.constexpr, GROUP: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """A tile of y: rows of one modality, columns of one of the weights side by side."""
    row_tiles = (n_text + ROWS - 1) // ROWS + (n_visual + ROWS - 1) // ROWS
    row_tile, tile = place(tl.program_id(0), row_tiles, COLUMN_TILES, GROUP)
    rows, real, is_visual = find_rows(row_tile, text_rows, visual_rows, n_text, n_visual, ROWS)
    size = part_of(tile, SIZES, STARTS)
    columns = (tile - part_of(tile, STARTS, STARTS)) * COLUMNS + tl.arange(0, COLUMNS)
    read = tl.minimum(columns, size - 1)
    w_text, w_visual = weight_of(tile, text, STARTS), weight_of(tile, visual, STARTS)
    a = x + rows[:, None] * x_row + tl.arange(0, DEPTH)[None, :]
    acc = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    if NORM:
        scale = visual_norm if is_visual else text_norm
        acc, squares = normed_product(
            acc, a, w_text, w_visual, is_visual, read, scale, WIDTH, ROWS, DEPTH, PRECISION
        )
        factor = 1.0 / tl.sqrt(squares + eps)
        acc *= factor[:, None]
        if tile == 0:
            tl.store(inverse + rows, factor, mask=real)
    else:
        acc = product(
            acc, a, 1, w_text, w_visual, is_visual, read, 0, WIDTH, DEPTH, True, PRECISION
        )
    if text_biases is not None:
        here = columns < (0 if is_visual else size)
        bias = tl.load(part_of(tile, text_biases, STARTS) + columns, mask=here, other=0.0)
        acc += bias.to(tl.float32)[None, :]
    if visual_biases is not None:
        here = columns < (size if is_visual else 0)
        bias = tl.load(part_of(tile, visual_biases, STARTS) + columns, mask=here, other=0.0)
        acc += bias.to(tl.float32)[None, :]
    at = rows[:, None] * OUT + (part_of(tile, BEGINS, STARTS) + columns)[None, :]
    tl.store(y + at, acc.to(y.dtype.element_ty), mask=real[:, None] & (columns < size)[None, :])


def forward(x: Tensor, rows: Rows, pair: Pair, eps: float, tile: Tile) -> Projected:
    """The one launch of many rows, or of rows of both modalities."""
    text, visual = pair.text, pair.visual
    tile = fitted(tile, text.width)
    y, inverse = pair.results(x)
    columns = text.columns(tile.columns)
    arguments = {
        "x": x, "x_row": x.stride(0), "y": y, "inverse": inverse, "eps": eps,
        **rows.arguments(), **text.arguments("text", x), **visual.arguments("visual", x),
        **columns, "WIDTH": text.width, "OUT": text.out, "NORM": pair.normed,
        "PRECISION": precision(x), "GROUP": GROUP,
    }  # fmt: skip
    grid = (rows.tiles(tile.rows) * columns["COLUMN_TILES"],)
    return [Launch(linear_kernel, grid, arguments, tile)], y, inverse
