"""How large the tiles of the kernels are: by default, and as measured on a device."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

import torch
import triton
from lightning_mono.kernels.fused.launch import Tile, capability
from torch import Tensor

from lightning_mono.assets import cache_dir


class Tiles(NamedTuple):
    """A tile for each kernel of the FFN; ``again`` where gate and up are computed again."""

    gate_up: Tile
    down: Tile
    swiglu_gradient: Tile
    swiglu_gradient_again: Tile
    input_gradient: Tile
    weight_gradient: Tile


NARROW = Tile(128, 64, 64, 8, 3)
"""Kernels with two results a tile: both, 128 x 64 each, fit in 128 registers a thread, so that two
blocks share a multiprocessor. At 128 x 128 registers are spilled, by SwiGLU's derivative most."""

DEFAULTS: Mapping[int, Tiles] = {
    # mma.sync keeps its operands in registers: 4 warps on 128 x 128 x 32 have the most work per
    # operand read, and two blocks still fit. The input's gradient runs two loops, whose addresses
    # 4 warps have no registers for.
    80: Tiles(
        gate_up=NARROW,
        down=Tile(128, 128, 32, 4, 4),
        swiglu_gradient=NARROW,
        swiglu_gradient_again=NARROW,
        input_gradient=Tile(128, 128, 32, 8, 4),
        weight_gradient=Tile(128, 128, 32, 4, 4),
    ),
    # wgmma reads its operands from shared memory in steps of 64 rows a warp group: two groups on
    # 128 x 128 x 64. With one result, two blocks of three stages fit into 227 KiB.
    90: Tiles(
        gate_up=NARROW,
        down=Tile(128, 128, 64, 8, 3),
        swiglu_gradient=NARROW,
        swiglu_gradient_again=NARROW,
        input_gradient=Tile(128, 128, 64, 8, 4),
        weight_gradient=Tile(128, 128, 64, 8, 3),
    ),
}
"""By compute capability, for bf16: no register is spilled (``compile.py`` reads it)."""

ROUNDED: Mapping[int, Mapping[str, Tile]] = {
    80: {
        "gate_up": Tile(64, 128, 32, 8, 3),
        "swiglu_gradient_again": Tile(64, 128, 32, 8, 3),
    },
    90: {},
}
"""What takes its place where weights are expanded on the way: that takes registers as well."""

FP32 = Tiles(*[Tile(64, 64, 32, 8, 3)] * 6)._replace(
    gate_up=Tile(64, 32, 32, 8, 3), swiglu_gradient_again=Tile(64, 32, 32, 8, 3)
)
"""Without tensor cores a product is computed from registers, and larger tiles spill them."""

INTERPRETED = Tiles(*[Tile(16, 16, 16, 1, 1)] * 6)
"""The smallest there is, so that small tests have boundaries."""


class LinearTiles(NamedTuple):
    """A tile for each kernel of the projections."""

    project: Tile
    input_gradient: Tile
    weight_gradient: Tile


# No register is spilled on either, also where x is normed (tests compile for both). Two programs
# share a multiprocessor, and 128 columns leave enough of them at 1,024 tokens of hidden size 2,048.
# A gradient of weights reads a block's row numbers a step before its rows: it takes 5 or 6 stages
# to have 2 of rows.
LINEAR_DEFAULTS: Mapping[int, LinearTiles] = {
    80: LinearTiles(
        project=Tile(128, 128, 32, 4, 4),
        input_gradient=Tile(128, 128, 32, 4, 4),
        weight_gradient=Tile(128, 128, 32, 4, 6),
    ),
    90: LinearTiles(
        project=Tile(128, 128, 64, 8, 3),
        input_gradient=Tile(128, 128, 64, 8, 3),
        weight_gradient=Tile(128, 128, 64, 8, 5),
    ),
}
LINEAR_FP32 = LinearTiles(
    project=Tile(64, 32, 32, 8, 4),
    input_gradient=Tile(64, 32, 32, 8, 4),
    weight_gradient=Tile(64, 32, 32, 8, 5),
)
LINEAR_INTERPRETED = LinearTiles(*[Tile(32, 32, 32, 4, 1)] * 3)
"""Small, so that the interpreter meets cut tiles at sizes for which it is quick."""

T = TypeVar("T", bound=Tiles | LinearTiles)


def ffn_shape(hidden: int, ffn: int, *, rounded: bool) -> str:
    """What tiles of an FFN are measured for, beside device and dtype.

    Args:
        rounded: whether the text's weights are.
    """
    return f"ffn {hidden}x{ffn}{' rounded' * rounded}"


def tiles_for(kind: type[T], x: Tensor, shape: str, *, measured: bool = True) -> T:
    """Tiles of one kind for the device and dtype of ``x``, as measured or by default.

    Args:
        shape: as :func:`ffn_shape` and ``Pair.shape`` say it.
        measured: whether to look for measured ones.
    """
    if x.device.type != "cuda":
        return cast("T", INTERPRETED if kind is Tiles else LINEAR_INTERPRETED)
    found = _measured(kind, x.device, x.dtype, shape) if measured else None  # type: ignore[arg-type]
    return cast("T | None", found) or defaults(
        kind, capability(x.device), x.dtype, rounded="rounded" in shape
    )


def defaults(kind: type[T], capability: int, dtype: torch.dtype, *, rounded: bool = False) -> T:
    """Tiles of the newest known architecture that a device is not older than."""
    known = max(known for known in DEFAULTS if known <= max(capability, 80))
    if kind is LinearTiles:
        return cast("T", LINEAR_FP32 if dtype == torch.float32 else LINEAR_DEFAULTS[known])
    if dtype == torch.float32:
        return cast("T", FP32)
    return cast("T", DEFAULTS[known]._replace(**(ROUNDED[known] if rounded else {})))


@cache
def _measured(kind: type[T], device: torch.device, dtype: torch.dtype, shape: str) -> T | None:
    return load(kind, tiles_file(torch.cuda.get_device_name(device), dtype, shape))


def tiles_file(device: str, dtype: torch.dtype, shape: str) -> Path:
    """Where tiles measured on a device of this name are kept, for this Triton."""
    key = f"{device} {dtype} {shape} triton {triton.__version__}"
    return cache_dir() / "tiles" / f"{re.sub(r'[^A-Za-z0-9.]+', '-', key)}.json"


def load(kind: type[T], path: Path) -> T | None:
    """Tiles from a file; None where there is none, or one of another version of this library."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return kind(**{name: Tile(*tile) for name, tile in fields.items()})
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return None


def store(x: Tensor, shape: str, tiles: Tiles | LinearTiles) -> None:
    """Keeps tiles for the device and dtype of ``x``, in this process and in later ones."""
    write(tiles_file(torch.cuda.get_device_name(x.device), x.dtype, shape), tiles)
    _measured.cache_clear()


def write(path: Path, tiles: Tiles | LinearTiles) -> None:
    """Writes tiles whole or not at all: other processes may be reading."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(tiles._asdict()), encoding="utf-8")
    part.replace(path)
