"""Measures which tiles are fastest on the GPU at hand, and keeps them for later processes.

    python -m lightning_mono.kernels.fused.autotune --hidden 2048 --ffn 8192 --heads 16 --kv-heads 8

measures those of a model's FFN and projections, in a few minutes. Models built later, in any
process with this GPU and this Triton, use them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
import triton
from lightning_mono.kernels.fused.examples import (
    Example,
    ffn_call,
    ffn_launches,
    linear_call,
    linear_launches,
)
from lightning_mono.kernels.fused.launch import Launch, Tile
from lightning_mono.kernels.fused.tuning import (
    LinearTiles,
    Tiles,
    ffn_shape,
    store,
    tiles_for,
)
from triton.runtime.errors import OutOfResources, PTXASError

from lightning_mono.arguments import whole

T = TypeVar("T", Tiles, LinearTiles)

CANDIDATES = (
    Tile(64, 64, 64, 4, 3),
    Tile(64, 128, 32, 8, 3),
    Tile(64, 128, 64, 4, 3),
    Tile(128, 64, 32, 4, 4),
    Tile(128, 64, 64, 8, 3),
    Tile(128, 64, 64, 8, 4),
    Tile(128, 128, 32, 4, 4),
    Tile(128, 128, 32, 4, 6),
    Tile(128, 128, 64, 8, 3),
    Tile(128, 128, 64, 8, 5),
    Tile(128, 256, 64, 8, 3),
    Tile(256, 64, 64, 8, 3),
)
"""What is tried beside the default; what does not fit the device is passed over. None is deeper
than the 64 weights that share a scale where they are rounded."""


def tune_ffn(example: Example, hidden: int, ffn: int) -> Tiles:
    """Measures and stores the tiles of an FFN; ``example`` is on a CUDA device."""
    call, shape = ffn_call(example, hidden, ffn), ffn_shape(hidden, ffn, rounded=example.rounded)
    before = tiles_for(Tiles, call.x, shape, measured=False)
    tiles = fastest(lambda tiles: ffn_launches(call, tiles), before, milliseconds)
    store(call.x, shape, tiles)
    return tiles


def tune_linear(
    example: Example, width: int, outs: Sequence[int], *, normed: bool = False
) -> LinearTiles:
    """Measures and stores the tiles of projections; ``example`` is on a CUDA device.

    Args:
        normed: whether their rows are normed on the way.
    """
    call = linear_call(example, width, outs, normed=normed)
    before = tiles_for(LinearTiles, call.x, call.pair.shape, measured=False)
    tiles = fastest(lambda tiles: linear_launches(call, tiles), before, milliseconds)
    store(call.x, call.pair.shape, tiles)
    return tiles


def fastest(
    launches: Callable[[T], Mapping[str, Launch]], tiles: T, cost: Callable[[Launch], float]
) -> T:
    """The cheapest candidate for each kernel; given ``tiles`` are candidates too, and win ties.

    Args:
        launches: makes a launch of every kernel, by the name of its tile.
    """
    for name in tiles._fields:
        choices = (getattr(tiles, name), *CANDIDATES)
        costs = [cost(launches(tiles._replace(**{name: tile}))[name]) for tile in choices]
        tiles = tiles._replace(**{name: choices[costs.index(min(costs))]})
    return tiles


def milliseconds(launch: Launch) -> float:
    """The median time of a launch on a GPU; infinite where it does not fit there."""
    try:
        return float(triton.testing.do_bench(launch.run, return_mode="median"))
    except (OutOfResources, PTXASError):
        return float("inf")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description="Measures tiles of the fused kernels on this GPU and keeps them."
    )
    made.add_argument("--hidden", type=whole(1), required=True, help="hidden size")
    made.add_argument("--ffn", type=whole(1), required=True, help="FFN size")
    made.add_argument("--heads", type=whole(1), required=True, help="query heads")
    made.add_argument("--kv-heads", type=whole(1), required=True, help="key and value heads")
    made.add_argument("--head-dim", type=whole(1), help="by default hidden / heads")
    made.add_argument("--tokens", type=whole(1), default=4096, help="of a batch")
    made.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    made.add_argument("--experts", choices=("bfloat16", "float32"), help="visual weights' dtype")
    made.add_argument("--text", choices=("plain", "nf4"), default="plain", help="text weights")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Tunes one model's FFN, its q, k, v with and without the norm, and its output projection."""
    given = parser().parse_args(arguments)
    if not torch.cuda.is_available():
        raise SystemExit("tiles are measured on a CUDA device, and there is none")
    example = Example(
        tokens=given.tokens,
        dtype=getattr(torch, given.dtype),
        visual_dtype=getattr(torch, given.experts or given.dtype),
        rounded=given.text == "nf4",
        device=torch.device("cuda", torch.cuda.current_device()),
    )
    size = given.head_dim or given.hidden // given.heads
    q, kv = given.heads * size, given.kv_heads * size
    print("ffn", tune_ffn(example, given.hidden, given.ffn))
    for normed in (False, True):
        print("q, k, v", tune_linear(example, given.hidden, (q, kv, kv), normed=normed))
    print("out", tune_linear(example, q, (given.hidden,)))


if __name__ == "__main__":
    main()
