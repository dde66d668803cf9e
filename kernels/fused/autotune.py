"""Measures which tiles are fastest on the GPU at hand, and keeps them for later processes."""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
from lightning_mono.kernels.fused.ffn_backward import Needs, backward
from lightning_mono.kernels.fused.ffn_forward import Call, Weights, forward
from lightning_mono.kernels.fused.launch import Launch, Tile
from lightning_mono.kernels.fused.tuning import Tiles, defaults, store, tiles_file
from triton.runtime.errors import OutOfResources, PTXASError

CANDIDATES = (
    Tile(64, 64, 64, 4, 3),
    Tile(64, 128, 64, 4, 3),
    Tile(128, 64, 32, 4, 4),
    Tile(128, 64, 64, 8, 3),
    Tile(128, 64, 64, 8, 4),
    Tile(128, 128, 32, 4, 4),
    Tile(128, 128, 64, 8, 3),
    Tile(128, 128, 64, 8, 4),
    Tile(128, 256, 64, 8, 3),
    Tile(256, 64, 64, 8, 3),
)
"""What is tried beside the default; what does not fit the device is passed over."""


def tune(hidden: int, ffn: int, dtype: torch.dtype = torch.bfloat16, tokens: int = 4096) -> Tiles:
    """Measures the FFN's tiles on the current CUDA device and stores them for all processes.

    Takes about a minute. Models built later in this process use them as well.

    Args:
        tokens: how many a batch has, half of them visual.

    Raises:
        ValueError: there is no CUDA device.
    """
    if not torch.cuda.is_available():
        raise ValueError("tiles are measured on a CUDA device, and there is none")
    major, minor = torch.cuda.get_device_capability()
    call = example(tokens, hidden, ffn, dtype, "cuda")
    tiles = fastest(call, defaults(10 * major + minor, dtype), milliseconds)
    store(tiles_file(torch.cuda.get_device_name(), dtype, hidden, ffn), tiles)
    return tiles


def fastest(call: Call, tiles: Tiles, cost: Callable[[Launch], float]) -> Tiles:
    """The cheapest candidate for each kernel; given ``tiles`` are candidates too, and win ties."""
    for name in Tiles._fields:
        choices = (getattr(tiles, name), *CANDIDATES)
        costs = [cost(launches(call, tiles._replace(**{name: tile}))[name]) for tile in choices]
        tiles = tiles._replace(**{name: choices[costs.index(min(costs))]})
    return tiles


def milliseconds(launch: Launch) -> float:
    """The median time of a launch on a GPU; infinite where it does not fit there."""
    try:
        return float(triton.testing.do_bench(launch.run, return_mode="median"))
    except (OutOfResources, PTXASError):
        return float("inf")


def example(
    tokens: int,
    hidden: int,
    ffn: int,
    dtype: torch.dtype,
    device: torch.device | str,
    visual_dtype: torch.dtype | None = None,
) -> Call:
    """A call with random tokens and weights, every second run of 256 tokens visual."""
    visual = torch.arange(tokens, device=device) // 256 % 2 == 1
    rows = torch.arange(tokens, device=device)
    if rows.is_meta:
        text_rows, visual_rows = rows[: tokens // 2], rows[: tokens - tokens // 2]
    else:
        text_rows, visual_rows = rows[~visual], rows[visual]

    def weights(dtype: torch.dtype) -> Weights:
        shapes = ((ffn, hidden), (ffn, hidden), (hidden, ffn))
        return Weights(*(0.02 * torch.randn(s, dtype=dtype, device=device) for s in shapes))

    x = torch.randn(tokens, hidden, dtype=dtype, device=device)
    return Call(x, text_rows, visual_rows, weights(dtype), weights(visual_dtype or dtype))


def launches(call: Call, tiles: Tiles) -> dict[str, Launch]:
    """A launch of every kernel, by the name of its tile; all weights train."""
    saved, unsaved = (forward(call, tiles, save=save) for save in (True, False))
    dy, needs = torch.empty_like(call.x), Needs(True, True, True, True, True)
    first, inputs, _, into = backward(call, dy, saved.gate, saved.up, needs, tiles).launches
    again = backward(call, dy, unsaved.gate, unsaved.up, needs, tiles).launches[0]
    kernels = (*saved.launches, first, again, inputs, into)
    return dict(zip(Tiles._fields, kernels, strict=True))
