"""How large the tiles of the FFN kernels are: by default, and as measured on a device."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
import triton
from lightning_mono.kernels.fused.launch import Tile
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

FP32 = Tiles(*[Tile(64, 64, 32, 8, 3)] * 6)
"""Without tensor cores a product is computed from registers, and larger tiles spill them."""

INTERPRETED = Tiles(*[Tile(16, 16, 16, 1, 1)] * 6)
"""The smallest there is, so that small tests have boundaries."""


def tiles_for(x: Tensor, ffn: int) -> Tiles:
    """Tiles for an FFN on the device and in the dtype of ``x`` (tokens, hidden)."""
    if x.device.type != "cuda":
        return INTERPRETED
    return _tiles_on(x.device.index, x.dtype, x.shape[1], ffn)


def defaults(capability: int, dtype: torch.dtype) -> Tiles:
    """Tiles of the newest known architecture that a device is not older than."""
    if dtype == torch.float32:
        return FP32
    return DEFAULTS[max(known for known in DEFAULTS if known <= max(capability, 80))]


@cache
def _tiles_on(device: int, dtype: torch.dtype, hidden: int, ffn: int) -> Tiles:
    stored = load(tiles_file(torch.cuda.get_device_name(device), dtype, hidden, ffn))
    major, minor = torch.cuda.get_device_capability(device)
    return stored or defaults(10 * major + minor, dtype)


def tiles_file(device: str, dtype: torch.dtype, hidden: int, ffn: int) -> Path:
    """Where tiles measured on a device of this name are kept, for this Triton."""
    key = f"{device} {dtype} {hidden}x{ffn} triton {triton.__version__}"
    return cache_dir() / "tiles" / f"{re.sub(r'[^A-Za-z0-9.]+', '-', key)}.json"


def load(path: Path) -> Tiles | None:
    """Tiles from a file; None where there is none, or one of another version of this library."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Tiles(**{name: Tile(*tile) for name, tile in fields.items()})
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return None


def store(path: Path, tiles: Tiles) -> None:
    """Writes tiles whole or not at all: other processes may be reading."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(tiles._asdict()), encoding="utf-8")
    part.replace(path)
    _tiles_on.cache_clear()
