"""Gradients of the projections: the input's in one launch, all weights' in another."""

# In kernels, constants are in capitals and arguments have no Python types.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from lightning_mono.kernels.fused.launch import Launch, Tile
from lightning_mono.kernels.fused.linear_tiles import (
    GROUP,
    Pair,
    Rows,
    add,
    fitted,
    part_of,
    precision,
    weight_of,
)
from lightning_mono.kernels.fused.tiles import dot, find_columns, find_rows, place
from lightning_mono.kernels.fused.weights import chosen, rounded
from torch import Tensor

NORM_ROWS = 16
"""Rows whose share of the norm weights' gradient one program adds up."""


@triton.jit
def parts_product(
    acc, dy_rows, weights, read, first,
    BEGINS: tl.constexpr, OUT: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """acc + dy @ W, with W the weights that stand side by side in dy; no step holds two of them."""
    inner = tl.arange(0, DEPTH)
    a = dy_rows + inner[None, :]
    for start in range(0, OUT, DEPTH):
        w = weight_of(start, weights, BEGINS)
        at = start - part_of(start, BEGINS, BEGINS) + inner
        if w.scales is None:
            w_block = tl.load(w.at + at[:, None] * w.row + read[None, :])
        else:
            w_block = rounded(w, at, first, read.shape[0], True)
        a_block = tl.load(a)
        acc = dot(a_block, w_block.to(a_block.dtype), acc, PRECISION)
        a += DEPTH
    return acc


@triton.jit(do_not_specialize=["n_text", "n_visual"])
def input_kernel(
    dy, dy_row, dx, text_rows, visual_rows, n_text, n_visual, text, visual,
    WIDTH: tl.constexpr, OUT: tl.constexpr, BEGINS: tl.constexpr,
    PRECISION: tl.constexpr, GROUP: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """A tile of dx = dy W, with W the weights of the tile's modality side by side."""
    row_tiles = (n_text + ROWS - 1) // ROWS + (n_visual + ROWS - 1) // ROWS
    tile, column_tile = place(tl.program_id(0), row_tiles, (WIDTH + COLUMNS - 1) // COLUMNS, GROUP)
    rows, real, is_visual = find_rows(tile, text_rows, visual_rows, n_text, n_visual, ROWS)
    columns, read = find_columns(column_tile, WIDTH, COLUMNS)
    first = column_tile * COLUMNS
    dy_rows = dy + rows[:, None] * dy_row
    acc = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    if text[0].at.dtype == visual[0].at.dtype:
        weights = (
            chosen(text[0], visual[0], is_visual),
            chosen(text[1], visual[1], is_visual),
            chosen(text[2], visual[2], is_visual),
        )
        acc = parts_product(acc, dy_rows, weights, read, first, BEGINS, OUT, DEPTH, PRECISION)
    elif is_visual:
        acc = parts_product(acc, dy_rows, visual, read, first, BEGINS, OUT, DEPTH, PRECISION)
    else:
        acc = parts_product(acc, dy_rows, text, read, first, BEGINS, OUT, DEPTH, PRECISION)
    at = rows[:, None] * WIDTH + columns[None, :]
    keep = real[:, None] & (columns < WIDTH)[None, :]
    tl.store(dx + at, acc.to(dx.dtype.element_ty), mask=keep)


@triton.jit
def dy_block(dy, dy_row, index, start, count, columns, OUT: tl.constexpr, DEPTH: tl.constexpr):
    """(columns, DEPTH rows) of dy from a place of an index on; the rows' numbers; which exist."""
    real = start + tl.arange(0, DEPTH) < count
    rows = tl.load(index + start + tl.arange(0, DEPTH), mask=real, other=0).to(tl.int64)
    inside = (columns < OUT)[:, None] & real[None, :]
    block = tl.load(dy + rows[None, :] * dy_row + columns[:, None], mask=inside, other=0.0)
    return block, rows, real


@triton.jit(do_not_specialize=["n_text", "n_visual"])
def weights_kernel(
    dy, dy_row, x, x_row, inverse, text_rows, visual_rows, n_text, n_visual,
    text_grad, visual_grad, text_bias_grad, visual_bias_grad, text_norm, visual_norm,
    WIDTH: tl.constexpr, OUT: tl.constexpr, TEXT_TILES: tl.constexpr, NORM: tl.constexpr,
    TEXT_BIAS: tl.constexpr, VISUAL_BIAS: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """A tile of dW = dy^T x over the rows of one modality, fp32 sums in the rows' order.

    Text's tiles, TEXT_TILES of them where it trains, come before visual's.
    """
    program = tl.program_id(0)
    visual = program >= TEXT_TILES
    index = visual_rows if visual else text_rows
    count = n_visual if visual else n_text
    tile = program - (TEXT_TILES if visual else 0)
    across = (WIDTH + COLUMNS - 1) // COLUMNS
    columns = tile // across * ROWS + tl.arange(0, ROWS)
    inputs, read = find_columns(tile % across, WIDTH, COLUMNS)
    acc = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    for start in range(0, count, DEPTH):
        d_block, rows, real = dy_block(dy, dy_row, index, start, count, columns, OUT, DEPTH)
        if NORM:
            factor = tl.load(inverse + rows)[None, :]
            d_block = (d_block.to(tl.float32) * factor).to(d_block.dtype)
        x_block = tl.load(x + rows[:, None] * x_row + read[None, :], mask=real[:, None], other=0.0)
        acc = dot(d_block, x_block, acc, PRECISION)
    if NORM:
        scale = tl.load((visual_norm if visual else text_norm) + read).to(tl.float32)
        acc *= scale[None, :]
    at = columns[:, None] * WIDTH + inputs[None, :]
    keep = (columns < OUT)[:, None] & (inputs < WIDTH)[None, :]
    if visual:
        tl.store(visual_grad + at, acc.to(visual_grad.dtype.element_ty), mask=keep)
    else:
        tl.store(text_grad + at, acc.to(text_grad.dtype.element_ty), mask=keep)
    if TEXT_BIAS or VISUAL_BIAS:
        # The first tile of a block of columns has their biases: it reads dy once more.
        first = tile % across == 0
        sums = tl.full((ROWS,), 0.0, tl.float32)
        for start in range(0, count if first else 0, DEPTH):
            d_block, _, _ = dy_block(dy, dy_row, index, start, count, columns, OUT, DEPTH)
            sums += tl.reduce(d_block.to(tl.float32), 1, add)
        end = OUT if first else 0
        if TEXT_BIAS:
            sums_text = sums.to(text_bias_grad.dtype.element_ty)
            tl.store(text_bias_grad + columns, sums_text, mask=columns < (0 if visual else end))
        if VISUAL_BIAS:
            sums_visual = sums.to(visual_bias_grad.dtype.element_ty)
            tl.store(visual_bias_grad + columns, sums_visual, mask=columns < (end if visual else 0))


@triton.jit(do_not_specialize=["n_text", "n_visual"])
def norm_kernel(
    dx, x, x_row, inverse, shares, text_rows, visual_rows, n_text, n_visual,
    text_norm, visual_norm,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Turns the gradient of ROWS normed rows into that of the rows, in place, one after another.

    With n = x * inverse * scale, d = dn * scale: dx = inverse * (d - x * inverse^2 * mean(d * x)),
    and the rows' share of dscale = sum(dn * x * inverse).
    """
    tile = tl.program_id(0)
    text_tiles = (n_text + ROWS - 1) // ROWS
    visual = tile >= text_tiles
    index = visual_rows if visual else text_rows
    begin = (tile - text_tiles if visual else tile) * ROWS
    end = tl.minimum(begin + ROWS, n_visual if visual else n_text)
    columns = tl.arange(0, COLUMNS)
    inside = columns < WIDTH
    norm = visual_norm if visual else text_norm
    scale = tl.load(norm + columns, mask=inside, other=0.0).to(tl.float32)
    share = tl.full((COLUMNS,), 0.0, tl.float32)
    for near in range(begin, end):
        row = tl.load(index + near).to(tl.int64)
        factor = tl.load(inverse + row)
        at = dx + row * WIDTH + columns
        dn = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        x_hat = tl.load(x + row * x_row + columns, mask=inside, other=0.0).to(tl.float32) * factor
        d = dn * scale
        share += dn * x_hat
        out = factor * (d - x_hat * (tl.reduce(d * x_hat, 0, add) / WIDTH))
        tl.store(at, out.to(dx.dtype.element_ty), mask=inside)
    tl.store(shares + tile * WIDTH + columns, share, mask=inside)


def input_gradient(dy: Tensor, rows: Rows, pair: Pair, tile: Tile) -> tuple[Launch, Tensor]:
    """The launch that writes dy W, (tokens, width): the gradient of x, or of x normed."""
    text, visual = pair.text, pair.visual
    tile = fitted(tile, math.gcd(*text.sizes))
    dx = dy.new_empty(dy.shape[0], text.width)
    columns = text.columns(tile.columns)
    arguments = {
        "dy": dy, "dy_row": dy.stride(0), "dx": dx, **rows.arguments(),
        "text": text.matrices, "visual": visual.matrices,
        "WIDTH": text.width, "OUT": text.out, "BEGINS": columns["BEGINS"],
        "PRECISION": precision(dy), "GROUP": GROUP,
    }  # fmt: skip
    grid = (rows.tiles(tile.rows) * triton.cdiv(text.width, tile.columns),)
    return Launch(input_kernel, grid, arguments, tile), dx


def weight_gradients(
    dy: Tensor,
    x: Tensor,
    inverse: Tensor,
    rows: Rows,
    pair: Pair,
    trains: tuple[bool, bool],
    tile: Tile,
) -> tuple[Launch, list[Tensor]]:
    """The launch that writes the gradients of the modalities that train.

    Returns:
        The launch, and text's and visual's weights (all columns, width), then text's and visual's
        biases (all columns): in the dtype of the parameters, empty where nothing is asked for.
    """
    out, width = pair.text.out, pair.text.width
    grads = pair.gradients(x, trains)
    tiles = triton.cdiv(out, tile.rows) * triton.cdiv(width, tile.columns)
    names = ("text_grad", "visual_grad", "text_bias_grad", "visual_bias_grad")
    arguments = {
        "dy": dy, "dy_row": dy.stride(0), "x": x, "x_row": x.stride(0), "inverse": inverse,
        **rows.arguments(), **dict(zip(names, grads, strict=True)), **_norms(pair, x),
        "WIDTH": width, "OUT": out, "TEXT_TILES": tiles * trains[0], "NORM": pair.normed,
        "TEXT_BIAS": grads[2].numel() > 0, "VISUAL_BIAS": grads[3].numel() > 0,
        "PRECISION": precision(x),
    }  # fmt: skip
    return Launch(weights_kernel, (tiles * sum(trains),), arguments, tile), grads


def norm_gradient(
    dx: Tensor, x: Tensor, inverse: Tensor, rows: Rows, pair: Pair
) -> tuple[Launch, tuple[Tensor, Tensor]]:
    """The launch that takes dx from behind the norm to before it, in place.

    Returns:
        The launch, and the shares of text's and of visual's rows in the gradients of the norms'
        weights, (tiles, width) fp32 each.
    """
    width = pair.text.width
    columns = triton.next_power_of_2(width)
    # Eight warps on 1,024 columns are given 32 registers each on sm_90, and spill.
    tile = Tile(NORM_ROWS, columns, 1, 8 if columns > 1024 else 4, 1)
    text, visual = (triton.cdiv(count, tile.rows) for count in rows.counts)
    shares = x.new_empty(text + visual, width, dtype=torch.float32)
    arguments = {
        "dx": dx, "x": x, "x_row": x.stride(0), "inverse": inverse, "shares": shares,
        **rows.arguments(), **_norms(pair, x), "WIDTH": width,
    }  # fmt: skip
    launch = Launch(norm_kernel, (text + visual,), arguments, tile)
    return launch, (shares[:text], shares[text:])


def _norms(pair: Pair, filler: Tensor) -> dict[str, Tensor]:
    text, visual = pair.text.norm, pair.visual.norm
    return {
        "text_norm": filler if text is None else text,
        "visual_norm": filler if visual is None else visual,
    }
