"""What the kernels share: which tile a program computes, where its rows are, and products.

Kernels here call builtins of ``triton.language`` only. Its functions that are compiled themselves
(``tl.zeros``, ``tl.sigmoid``...) cannot be interpreted where Triton was imported before the
interpreter was asked for, as other libraries do.
"""

# In kernels, constants are in capitals and arguments have no Python types.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl
from lightning_mono.kernels.fused.launch import interpreted
from lightning_mono.kernels.fused.weights import chosen, rounded

INTERPRETED = tl.constexpr(interpreted())


@triton.jit
def place(program, row_tiles, column_tiles, GROUP: tl.constexpr):
    """Row tile and column tile of a program.

    GROUP row tiles walk along the columns together, so that a block of weights is read from memory
    once for all of them and then from the cache.
    """
    first = program // (GROUP * column_tiles) * GROUP
    height = tl.minimum(row_tiles - first, GROUP)
    within = program % (GROUP * column_tiles)
    return first + within % height, within // height


@triton.jit
def find_rows(tile, text_rows, visual_rows, n_text, n_visual, ROWS: tl.constexpr):
    """Row numbers of a row tile, which of them exist, and whether they are visual.

    The tiles of the text come first. A tile holds one modality; the last one of each may have rows
    left over, which repeat row 0 and must not be stored.
    """
    text_tiles = (n_text + ROWS - 1) // ROWS
    visual = tile >= text_tiles
    index = visual_rows if visual else text_rows
    count = n_visual if visual else n_text
    at = tl.where(visual, tile - text_tiles, tile) * ROWS + tl.arange(0, ROWS)
    rows = tl.load(index + at, mask=at < count, other=0).to(tl.int64)
    return rows, at < count, visual


@triton.jit
def find_columns(tile, SIZE: tl.constexpr, COLUMNS: tl.constexpr):
    """Column numbers of a column tile to store at, and to read at: those past the end wrap round.

    Sizes are multiples of 16, so 16 neighbours stay neighbours and are read at once.
    """
    at = tile * COLUMNS + tl.arange(0, COLUMNS)
    if SIZE % COLUMNS == 0:
        return at, at
    return at, tl.max_contiguous(tl.multiple_of(at % SIZE, 16), 16)


@triton.jit
def _block(pointers, left, DEPTH: tl.constexpr, EVEN: tl.constexpr, AXIS: tl.constexpr):
    """Loads a block of which ``left`` places along an axis exist; the others are zero."""
    if EVEN:
        return tl.load(pointers)
    inside = tl.expand_dims(tl.arange(0, DEPTH) < left, 1 - AXIS)
    return tl.load(pointers, mask=inside, other=0.0)


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    """acc + a @ b in fp32."""
    if INTERPRETED:  # The interpreter multiplies the bits of bf16 as if they were integers.
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit
def product(
    acc, a, a_step, text, visual, is_visual, read, first,
    SIZE: tl.constexpr, DEPTH: tl.constexpr, TRANSPOSED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """acc + a @ w in fp32, with the weight w of a tile's modality or, TRANSPOSED, with w^T.

    ``a`` points at its first block, ``first`` is the first of the columns ``read``. Weights of one
    dtype are told apart by their pointers alone; those of two dtypes need two loops, which cost
    shared memory twice.
    """
    if text.at.dtype == visual.at.dtype:
        w = chosen(text, visual, is_visual)
        acc = _product(acc, a, a_step, w, read, first, SIZE, DEPTH, TRANSPOSED, PRECISION)
    elif is_visual:
        acc = _product(acc, a, a_step, visual, read, first, SIZE, DEPTH, TRANSPOSED, PRECISION)
    else:
        acc = _product(acc, a, a_step, text, read, first, SIZE, DEPTH, TRANSPOSED, PRECISION)
    return acc


@triton.jit
def _product(
    acc, a, a_step, w, read, first,
    SIZE: tl.constexpr, DEPTH: tl.constexpr, TRANSPOSED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """acc + a @ w: reads the columns ``read`` of w, block by block in the dtype of ``a``."""
    EVEN: tl.constexpr = SIZE % DEPTH == 0
    inner = tl.arange(0, DEPTH)
    if TRANSPOSED:
        at = w.at + inner[:, None] + read[None, :] * w.row
        step = 1
    else:
        at = w.at + inner[:, None] * w.row + read[None, :]
        step = w.row
    for start in range(0, SIZE, DEPTH):
        a_block = _block(a, SIZE - start, DEPTH, EVEN, 1)
        if w.scales is None:
            w_block = _block(at, SIZE - start, DEPTH, EVEN, 0)
            at += DEPTH * step
        elif TRANSPOSED:
            w_block = tl.trans(rounded(w, read, start, DEPTH, False))
        else:
            w_block = rounded(w, start + inner, first, read.shape[0], True)
        acc = dot(a_block, w_block.to(a_block.dtype), acc, PRECISION)
        a += DEPTH * a_step
    return acc


@triton.jit
def two_products(
    a, a_step, text, text_other, visual, visual_other, is_visual, read,
    SIZE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """a @ v^T and a @ w^T in one pass over ``a``, with the two weights of a tile's modality."""
    if text.at.dtype == visual.at.dtype:
        v = chosen(text, visual, is_visual)
        w = chosen(text_other, visual_other, is_visual)
        one, other = _two_products(a, a_step, v, w, read, SIZE, ROWS, COLUMNS, DEPTH, PRECISION)
    elif is_visual:
        one, other = _two_products(
            a, a_step, visual, visual_other, read, SIZE, ROWS, COLUMNS, DEPTH, PRECISION
        )
    else:
        one, other = _two_products(
            a, a_step, text, text_other, read, SIZE, ROWS, COLUMNS, DEPTH, PRECISION
        )
    return one, other


@triton.jit
def _two_products(
    a, a_step, v, w, read,
    SIZE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    EVEN: tl.constexpr = SIZE % DEPTH == 0
    inner = tl.arange(0, DEPTH)
    v_at = v.at + inner[:, None] + read[None, :] * v.row
    w_at = w.at + inner[:, None] + read[None, :] * w.row
    one = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    other = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    for start in range(0, SIZE, DEPTH):
        a_block = _block(a, SIZE - start, DEPTH, EVEN, 1)
        if v.scales is None:
            v_block = _block(v_at, SIZE - start, DEPTH, EVEN, 0)
            w_block = _block(w_at, SIZE - start, DEPTH, EVEN, 0)
            v_at += DEPTH
            w_at += DEPTH
        else:
            v_block = tl.trans(rounded(v, read, start, DEPTH, False))
            w_block = tl.trans(rounded(w, read, start, DEPTH, False))
        one = dot(a_block, v_block.to(a_block.dtype), one, PRECISION)
        other = dot(a_block, w_block.to(a_block.dtype), other, PRECISION)
        a += DEPTH * a_step
    return one, other


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))
