"""The number formats of GGUF files, block by block, into fp32.

Layouts as in ggml (ggml-common.h): a block holds 32 or 256 values of few bits and its scales.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Format:
    """How one kind of tensor is stored.

    Attributes:
        name: ggml's name.
        block: layout of one block.
        values: numbers in a block.
        decode: (blocks,) of ``block`` -> (blocks, values) fp32.
    """

    name: str
    block: np.dtype
    values: int
    decode: Callable[[np.ndarray], Array]


def _scale(blocks: np.ndarray, field: str = "d") -> Array:
    return blocks[field].astype(np.float32)[:, None]


def _nibbles(packed: np.ndarray) -> np.ndarray:
    """(..., n) bytes -> (..., 2n): all low halves, then all high halves."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def _fifth_bits(blocks: np.ndarray) -> np.ndarray:
    bits = blocks["high"][:, None] >> np.arange(32, dtype=np.uint32) & 1
    return (bits << 4).astype(np.uint8)


def _q4_0(blocks: np.ndarray) -> Array:
    return _scale(blocks) * (_nibbles(blocks["q"]).astype(np.float32) - 8)


def _q4_1(blocks: np.ndarray) -> Array:
    return _scale(blocks) * _nibbles(blocks["q"]).astype(np.float32) + _scale(blocks, "m")


def _q5_0(blocks: np.ndarray) -> Array:
    q = _nibbles(blocks["q"]) | _fifth_bits(blocks)
    return _scale(blocks) * (q.astype(np.float32) - 16)


def _q5_1(blocks: np.ndarray) -> Array:
    q = _nibbles(blocks["q"]) | _fifth_bits(blocks)
    return _scale(blocks) * q.astype(np.float32) + _scale(blocks, "m")


def _q8_0(blocks: np.ndarray) -> Array:
    return _scale(blocks) * blocks["q"].astype(np.float32)


def _k_scales(blocks: np.ndarray) -> tuple[Array, Array]:
    """Scale and minimum of each of the 8 groups of a Q4_K or Q5_K block: (blocks, 8, 1) each.

    Twelve bytes hold sixteen 6-bit numbers: six bits of four scales, six bits of four minima,
    then low nibbles of the other eight, whose top bits sit in the top bits of the former.
    """
    scale, low, rest = np.split(blocks["scales"], 3, axis=1)
    scales = np.concatenate([scale & 63, rest & 15 | scale >> 2 & 48], axis=1)
    minima = np.concatenate([low & 63, rest >> 4 | low >> 2 & 48], axis=1)
    d = _scale(blocks) * scales.astype(np.float32)
    m = _scale(blocks, "m") * minima.astype(np.float32)
    return d[:, :, None], m[:, :, None]


def _q4_k(blocks: np.ndarray) -> Array:
    d, m = _k_scales(blocks)
    q = _nibbles(blocks["q"].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    return (d * q.astype(np.float32) - m).reshape(-1, 256)


def _q5_k(blocks: np.ndarray) -> Array:
    d, m = _k_scales(blocks)
    low = _nibbles(blocks["q"].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    high = blocks["high"][:, None] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    return (d * (low | high << 4).astype(np.float32) - m).reshape(-1, 256)


def _q6_k(blocks: np.ndarray) -> Array:
    d = _scale(blocks) * blocks["scales"].astype(np.float32)
    low = _nibbles(blocks["q"].reshape(-1, 2, 64)).reshape(-1, 8, 32)
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = blocks["high"].reshape(-1, 2, 1, 32) >> shifts & 3
    q = (low | high.reshape(-1, 8, 32) << 4).astype(np.float32) - 32
    return (d[:, :, None] * q.reshape(-1, 16, 16)).reshape(-1, 256)


def _bf16(blocks: np.ndarray) -> Array:
    return (blocks["q"].astype(np.uint32) << 16).view(np.float32)[:, None]


def _plain(blocks: np.ndarray) -> Array:
    return blocks["q"].astype(np.float32)[:, None]


_D, _M = ("d", "<f2"), ("m", "<f2")
_BITS = ("q", "u1", 16)

# ggml's number of each format.
FORMATS = {
    0: Format("F32", np.dtype([("q", "<f4")]), 1, _plain),
    1: Format("F16", np.dtype([("q", "<f2")]), 1, _plain),
    2: Format("Q4_0", np.dtype([_D, _BITS]), 32, _q4_0),
    3: Format("Q4_1", np.dtype([_D, _M, _BITS]), 32, _q4_1),
    6: Format("Q5_0", np.dtype([_D, ("high", "<u4"), _BITS]), 32, _q5_0),
    7: Format("Q5_1", np.dtype([_D, _M, ("high", "<u4"), _BITS]), 32, _q5_1),
    8: Format("Q8_0", np.dtype([_D, ("q", "i1", 32)]), 32, _q8_0),
    12: Format("Q4_K", np.dtype([_D, _M, ("scales", "u1", 12), ("q", "u1", 128)]), 256, _q4_k),
    13: Format(
        "Q5_K",
        np.dtype([_D, _M, ("scales", "u1", 12), ("high", "u1", 32), ("q", "u1", 128)]),
        256,
        _q5_k,
    ),
    14: Format(
        "Q6_K",
        np.dtype([("q", "u1", 128), ("high", "u1", 64), ("scales", "i1", 16), _D]),
        256,
        _q6_k,
    ),
    30: Format("BF16", np.dtype([("q", "<u2")]), 1, _bf16),
}
