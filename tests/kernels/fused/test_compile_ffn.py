"""The FFN kernels compiled for an A100 and an H100, neither of which need be there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from lightning_mono.kernels.fused.autotune import example, launches
from lightning_mono.kernels.fused.compile import LIMITS, Resources, occupancy, resources, table
from lightning_mono.kernels.fused.launch import Tile
from lightning_mono.kernels.fused.tuning import INTERPRETED, Tiles

# Kernels that are interpreted in this process are compiled in another.
COMPILE = """
import json, sys
from dataclasses import asdict, replace

import torch
from lightning_mono.kernels.fused.autotune import example, launches
from lightning_mono.kernels.fused.compile import resources
from lightning_mono.kernels.fused.tuning import defaults

hidden, ffn, dtype, visual_dtype, tf32 = json.loads(sys.argv[1])
torch.backends.cuda.matmul.allow_tf32 = tf32
dtype, visual_dtype = getattr(torch, dtype), getattr(torch, visual_dtype)
call = example(4096, hidden, ffn, dtype, "meta", visual_dtype)
for capability in (80, 90):
    for name, launch in launches(call, defaults(capability, dtype)).items():
        found = replace(resources(launch, capability), kernel=name)
        print(json.dumps([asdict(found), launch.tile]))
"""
SIZES_2B, SIZES_135M = (2048, 8192), (576, 1536)
MOST_SHARED = {80: 163 * 1024, 90: 227 * 1024}
"""Bytes of shared memory that one block may have."""
WEIGHT_BLOCKS = {"gate_up": 2, "swiglu_gradient_again": 2}
"""How many blocks of weights are read beside one of tokens, where it is not one."""


def _compiled(
    sizes: tuple[int, int], dtype: str, visual_dtype: str, *, tf32: bool = False
) -> list[tuple[Resources, Tile]]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    case = json.dumps([*sizes, dtype, visual_dtype, tf32])
    command = [sys.executable, "-W", "ignore", "-c", COMPILE, case]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(LIMITS) * len(Tiles._fields)
    return [(Resources(**fields), Tile(*tile)) for fields, tile in lines]


def _check(found: Resources, tile: Tile, itemsize: int) -> None:
    assert found.stack == 0, f"{found.kernel} spills registers: {found}"
    assert found.shared <= MOST_SHARED[found.capability], found
    assert found.occupancy > 0, found
    weights = WEIGHT_BLOCKS.get(found.kernel, 1)
    stage = (tile.rows + weights * tile.columns) * tile.depth * itemsize
    assert found.shared >= 2 * stage, f"{found.kernel} reads nothing ahead: {found}"
    assert found.copies > 0, found


def test_2b_fits_an_a100_and_an_h100() -> None:
    """bf16: nothing spilled, tensor cores used, at least two stages of reads under way."""
    for found, tile in _compiled(SIZES_2B, "bfloat16", "bfloat16"):
        _check(found, tile, itemsize=2)
        assert found.mma == {80: "mma.sync", 90: "wgmma"}[found.capability], found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "dtype", "visual_dtype", "tf32"),
    [
        (SIZES_135M, "bfloat16", "bfloat16", False),
        (SIZES_2B, "bfloat16", "float32", False),
        (SIZES_2B, "float32", "bfloat16", False),
        (SIZES_2B, "float32", "float32", False),
        (SIZES_2B, "float32", "float32", True),
    ],
)
def test_other_sizes_and_dtypes_fit(
    sizes: tuple[int, int], dtype: str, visual_dtype: str, tf32: bool
) -> None:
    for found, tile in _compiled(sizes, dtype, visual_dtype, tf32=tf32):
        _check(found, tile, itemsize=2 if "bfloat16" in (dtype, visual_dtype) else 4)
        assert (found.mma is not None) == (dtype == "bfloat16" or tf32), found


@pytest.mark.parametrize(
    ("registers", "shared", "warps", "capability", "expected"),
    [
        (128, 0, 8, 80, 2 / 8),  # 256 threads x 128 registers: half of them
        (129, 0, 8, 80, 1 / 8),  # given 8 at a time: 136 a thread, one block
        (32, 0, 4, 80, 1.0),  # 16 blocks of 4 warps: all 64
        (32, 0, 1, 90, 32 / 64),  # 32 blocks are the most
        (64, 100 * 1024, 8, 90, 2 / 8),  # 101 KiB each of 228
        (64, 100 * 1024, 8, 80, 1 / 8),
        (255, 228 * 1024, 8, 90, 0.0),
    ],
)
def test_occupancy(
    registers: int, shared: int, warps: int, capability: int, expected: float
) -> None:
    assert occupancy(registers, shared, warps, LIMITS[capability]) == expected


def test_table_has_a_row_for_each_launch() -> None:
    found = Resources("down 128x64x32", 80, 128, 0, 49_152, 8, 3, 12, "mma.sync", 0.25)
    header, rule, *rows = table([found, replace(found, capability=90)]).splitlines()
    assert len({line.count("|") for line in (header, rule, *rows)}) == 1
    assert rows[0] == "| down 128x64x32 | 80 | 8 | 3 | 128 | 0 | 48 | mma.sync | 25% |"


def test_interpreted_kernels_are_not_compiled() -> None:
    call = example(16, 16, 16, torch.bfloat16, "meta")
    launch = launches(call, INTERPRETED)["down"]
    with pytest.raises(ValueError, match="unset TRITON_INTERPRET"):
        resources(launch, 80)
