"""The kernels of projections and decoding, compiled for an A100 and an H100 that are not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from lightning_mono.kernels.fused.compile import LIMITS, Resources
from lightning_mono.kernels.fused.launch import Tile

# Kernels that are interpreted in this process are compiled in another.
COMPILE = """
import json, sys
from dataclasses import asdict, replace

import torch
from lightning_mono.kernels.fused import decode, linear_tiles
from lightning_mono.kernels.fused.compile import resources
from lightning_mono.kernels.fused.linear_backward import (
    input_gradient, norm_gradient, weight_gradients,
)
from lightning_mono.kernels.fused.linear_forward import forward
from lightning_mono.kernels.fused.linear_tiles import Pair, Rows

tokens, hidden, kv, ffn, dtype, visual_dtype, tf32 = json.loads(sys.argv[1])
torch.backends.cuda.matmul.allow_tf32 = tf32
dtype, visual_dtype = getattr(torch, dtype), getattr(torch, visual_dtype)
empty = lambda *size, dtype=dtype: torch.empty(*size, dtype=dtype, device="meta")
index = lambda count: empty(count, dtype=torch.int64)
norm = (empty(hidden), empty(hidden))


def pair(outs, biased, norms):
    sides = [[empty(o, hidden, dtype=d) for o in outs] for d in (dtype, visual_dtype)]
    biases = [[empty(o) for o in outs] if biased else [] for _ in sides]
    return Pair.of(*sides, *biases, norms)


def training(name, outs, biased, norms):
    rows, p = Rows(index(tokens // 4), index(tokens - tokens // 4)), pair(outs, biased, norms)
    x, dy = empty(tokens, hidden), empty(tokens, sum(outs))
    launches, _, inverse = forward(x, rows, p, 1e-5)
    yield name, launches[0]
    yield name + " dW", weight_gradients(dy, x, inverse, rows, p, (True, True))[0]
    if norms:
        yield name + " dnorm", norm_gradient(x, x, inverse, rows, p)[0]
    else:
        yield name + " dx", input_gradient(dy, rows, p)[0]


def decoding(count):
    x, rows = empty(count, hidden), Rows(index(count), index(0))
    projections = decode.projections(x, rows, pair((hidden, kv, kv), True, norm), 1e-5)[0]
    down = (empty(ffn, hidden), empty(ffn, hidden), empty(hidden, ffn))
    for launch in [*projections, *decode.ffn_launches(x, *down)[0]]:
        yield f"decode {count}: {launch.kernel.__name__.removesuffix('_kernel')}", launch


for capability in (80, 90):
    linear_tiles.generation = lambda device: capability
    for launches in (
        training("qkv", (hidden, kv, kv), True, ()),
        training("o", (hidden,), False, ()),
        training("norm + qkv", (hidden, kv, kv), True, norm),
        decoding(1),
        decoding(64),
    ):
        for name, launch in launches:
            found = replace(resources(launch, capability), kernel=name)
            print(json.dumps([asdict(found), launch.tile]), flush=True)
"""
SIZES_2B, SIZES_135M = (2048, 1024, 8192), (576, 192, 1536)
MOST_SHARED = {80: 163 * 1024, 90: 227 * 1024}
"""Bytes of shared memory that one block may have."""
PRODUCTS = 8
"""Of a capability's launches in training, all that are no ``dnorm``."""


def compiled(
    sizes: tuple[int, int, int], dtype: str, visual_dtype: str, *, tf32: bool = False
) -> list[tuple[Resources, Tile]]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    case = json.dumps([1024, *sizes, dtype, visual_dtype, tf32])
    command = [sys.executable, "-W", "ignore", "-c", COMPILE, case]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [(Resources(**fields), Tile(*tile)) for fields, tile in lines]


def _check(found: Resources, tile: Tile, itemsize: int) -> None:
    assert found.stack == 0, f"{found.kernel} spills registers: {found}"
    assert found.shared <= MOST_SHARED[found.capability], found
    assert found.occupancy > 0, found
    if _multiplies(found):
        weights = 2 if found.kernel.endswith("gate_up_rows") else 1
        # Where x is normed, its rows pass through registers: only weights are surely read ahead.
        rows = 0 if "norm" in found.kernel or found.kernel.endswith("share") else tile.rows
        stage = (rows + weights * tile.columns) * tile.depth * itemsize
        assert found.shared >= 2 * stage, f"{found.kernel} reads nothing ahead: {found}"
        assert found.copies > 0, found


def _multiplies(found: Resources) -> bool:
    return not found.kernel.endswith(("dnorm", ": sum"))


def test_2b_fits_an_a100_and_an_h100() -> None:
    """bf16: nothing spilled, tensor cores used, at least two stages of reads under way."""
    launches = compiled(SIZES_2B, "bfloat16", "bfloat16")
    training = [found for found, _ in launches if not found.kernel.startswith("decode")]
    assert sum(map(_multiplies, training)) == PRODUCTS * len(LIMITS)
    for found, tile in launches:
        _check(found, tile, itemsize=2)
    for found in filter(_multiplies, training):
        assert found.mma == {80: "mma.sync", 90: "wgmma"}[found.capability], found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "dtype", "visual_dtype", "tf32"),
    [
        (SIZES_135M, "bfloat16", "bfloat16", False),
        (SIZES_2B, "bfloat16", "float32", False),
        (SIZES_2B, "float32", "float32", False),
        (SIZES_2B, "float32", "float32", True),
    ],
)
def test_other_sizes_and_dtypes_fit_too(
    sizes: tuple[int, int, int], dtype: str, visual_dtype: str, tf32: bool
) -> None:
    for found, _ in compiled(sizes, dtype, visual_dtype, tf32=tf32):
        assert found.stack == 0, found
        assert found.shared <= MOST_SHARED[found.capability], found
