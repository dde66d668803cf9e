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
    acc, a, a_step, text, text_row, visual, visual_row, is_visual, read,
    SIZE: tl.constexpr, DEPTH: tl.constexpr, TRANSPOSED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """acc + a @ w in fp32, with the weight w of a tile's modality or, TRANSPOSED, with w^T.

    ``a`` points at its first block. Weights of one dtype are told apart by their pointers alone;
    those of two dtypes need two loops, which cost shared memory twice.
    """
    if text.dtype == visual.dtype:
        w = visual if is_visual else text
        row = visual_row if is_visual else text_row
        acc = _product(acc, a, a_step, w, row, read, SIZE, DEPTH, TRANSPOSED, PRECISION)
    elif is_visual:
        acc = _product(acc, a, a_step, visual, visual_row, read, SIZE, DEPTH, TRANSPOSED, PRECISION)
    else:
        acc = _product(acc, a, a_step, text, text_row, read, SIZE, DEPTH, TRANSPOSED, PRECISION)
    return acc


@triton.jit
def _product(
    acc, a, a_step, w, w_row, read,
    SIZE: tl.constexpr, DEPTH: tl.constexpr, TRANSPOSED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """acc + a @ w: reads the columns ``read`` of w, block by block in the dtype of ``a``."""
    EVEN: tl.constexpr = SIZE % DEPTH == 0
    inner = tl.arange(0, DEPTH)
    if TRANSPOSED:
        w += inner[:, None] + read[None, :] * w_row
        w_step = 1
    else:
        w += inner[:, None] * w_row + read[None, :]
        w_step = w_row
    for start in range(0, SIZE, DEPTH):
        a_block = _block(a, SIZE - start, DEPTH, EVEN, 1)
        w_block = _block(w, SIZE - start, DEPTH, EVEN, 0).to(a_block.dtype)
        acc = dot(a_block, w_block, acc, PRECISION)
        a += DEPTH * a_step
        w += DEPTH * w_step
    return acc


@triton.jit
def two_products(
    a, a_step, text, text_row, text_other, text_other_row,
    visual, visual_row, visual_other, visual_other_row, is_visual, read,
    SIZE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """a @ v^T and a @ w^T in one pass over ``a``, with the two weights of a tile's modality."""
    if text.dtype == visual.dtype:
        v = visual if is_visual else text
        v_row = visual_row if is_visual else text_row
        w = visual_other if is_visual else text_other
        w_row = visual_other_row if is_visual else text_other_row
        first, second = _two_products(
            a, a_step, v, v_row, w, w_row, read, SIZE, ROWS, COLUMNS, DEPTH, PRECISION
        )
    elif is_visual:
        first, second = _two_products(
            a, a_step, visual, visual_row, visual_other, visual_other_row,
            read, SIZE, ROWS, COLUMNS, DEPTH, PRECISION,
        )  # fmt: skip
    else:
        first, second = _two_products(
            a, a_step, text, text_row, text_other, text_other_row,
            read, SIZE, ROWS, COLUMNS, DEPTH, PRECISION,
        )  # fmt: skip
    return first, second


@triton.jit
def _two_products(
    a, a_step, v, v_row, w, w_row, read,
    SIZE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    EVEN: tl.constexpr = SIZE % DEPTH == 0
    inner = tl.arange(0, DEPTH)
    v += inner[:, None] + read[None, :] * v_row
    w += inner[:, None] + read[None, :] * w_row
    first = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    second = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    for start in range(0, SIZE, DEPTH):
        a_block = _block(a, SIZE - start, DEPTH, EVEN, 1)
        v_block = _block(v, SIZE - start, DEPTH, EVEN, 0).to(a_block.dtype)
        w_block = _block(w, SIZE - start, DEPTH, EVEN, 0).to(a_block.dtype)
        first = dot(a_block, v_block, first, PRECISION)
        second = dot(a_block, w_block, second, PRECISION)
        a += DEPTH * a_step
        v += DEPTH
        w += DEPTH
    return first, second


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))
