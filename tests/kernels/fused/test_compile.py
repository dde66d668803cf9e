"""All kernels compiled for an A100 and an H100, neither of which need be there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from lightning_mono.kernels.fused.compile import LIMITS, Resources, occupancy, resources, table
from lightning_mono.kernels.fused.examples import Example, ffn_call, ffn_launches
from lightning_mono.kernels.fused.launch import Tile
from lightning_mono.kernels.fused.tuning import INTERPRETED

SIZES_2B = ("--hidden", "2048", "--kv", "1024", "--ffn", "8192")
SIZES_135M = ("--hidden", "576", "--kv", "192", "--ffn", "1536")
MOST_SHARED = {80: 163 * 1024, 90: 227 * 1024}
"""Bytes of shared memory that one block may have."""
LAUNCHES = 6 + 3 * 3 + 1 + 2 * 5
"""FFN; qkv, normed qkv and output projection; a norm's gradient; decoding of 1 and 64 rows."""


def compiled(*options: str, tf32: bool = False) -> list[Resources]:
    """What the command finds; kernels that are interpreted in this process need another one."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"} if tf32 else {}
    module = "lightning_mono.kernels.fused.compile"
    command = [sys.executable, "-W", "ignore", "-m", module, "--json", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(LIMITS) * LAUNCHES
    return [Resources(**{**fields, "tile": Tile(*fields["tile"])}) for fields in lines]


def multiplies(found: Resources) -> bool:
    return not found.name.endswith(("norm_gradient", "sum"))


def check_fits(found: Resources) -> None:
    assert found.stack == 0, f"{found.name} spills registers: {found}"
    assert found.shared <= MOST_SHARED[found.capability], found
    assert found.occupancy > 0, found


def check_stages(found: Resources, weight_bytes: float) -> None:
    """At least two blocks of tokens and of weights lie in shared memory at a time."""
    weights = 2 if found.name.endswith(("gate_up", "gradient_again")) else 1
    # Where x is normed, its rows pass through registers: only weights are surely read ahead.
    rows = 0 if "norm" in found.name or "share" in found.name else found.tile.rows
    sizes = rows * 2 + weights * found.tile.columns * weight_bytes
    assert found.shared >= 2 * sizes * found.tile.depth, f"reads nothing ahead: {found}"
    assert found.copies > 0, found


@pytest.mark.slow
@pytest.mark.parametrize("text", ["plain", "nf4"])
def test_2b_fits_an_a100_and_an_h100(text: str) -> None:
    """bf16: nothing spilled, tensor cores used, at least two stages of reads under way."""
    for one in compiled(*SIZES_2B, "--text", text):
        check_fits(one)
        if multiplies(one):
            decodes = one.name.startswith("decode")
            # While decoding, codes are all that is read of weights.
            check_stages(one, 0.5 if decodes and text == "nf4" else 2)
            assert one.mma is not None, one
            assert decodes or one.mma == {80: "mma.sync", 90: "wgmma"}[one.capability], one


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "dtype", "experts", "text"),
    [
        (SIZES_135M, "bfloat16", "bfloat16", "plain"),
        (SIZES_135M, "bfloat16", "float32", "nf4"),
        (SIZES_2B, "bfloat16", "float32", "plain"),
        (SIZES_2B, "bfloat16", "float32", "nf4"),
        (SIZES_2B, "float32", "bfloat16", "plain"),
        (SIZES_2B, "float32", "float32", "plain"),
        (SIZES_2B, "float32", "float32", "nf4"),
    ],
)
def test_other_sizes_and_dtypes_fit(
    sizes: tuple[str, ...], dtype: str, experts: str, text: str
) -> None:
    for one in compiled(*sizes, "--dtype", dtype, "--experts", experts, "--text", text):
        check_fits(one)
        if multiplies(one):
            assert (one.mma is not None) == (dtype == "bfloat16"), one


@pytest.mark.slow
def test_tf32_uses_tensor_cores() -> None:
    for one in compiled(*SIZES_2B, "--dtype", "float32", tf32=True):
        check_fits(one)
        assert (one.mma is not None) == multiplies(one), one


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
    tile = Tile(128, 64, 32, 8, 3)
    found = Resources("down", tile, 80, 128, 0, 49_152, 12, "mma.sync", 0.25)
    header, rule, *rows = table([found, replace(found, capability=90)]).splitlines()
    assert len({line.count("|") for line in (header, rule, *rows)}) == 1
    assert rows[0] == "| down | 128x64x32 | 80 | 8 | 3 | 128 | 0 | 48 | mma.sync | 25% |"


def test_interpreted_kernels_are_not_compiled() -> None:
    launches = ffn_launches(ffn_call(Example(tokens=16), 16, 16), INTERPRETED)
    with pytest.raises(ValueError, match="unset TRITON_INTERPRET"):
        resources("down", launches["down"], 80)
