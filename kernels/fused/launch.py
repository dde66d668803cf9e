"""A kernel launch as a value: it runs on a GPU, is interpreted on a CPU, and compiles without."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor


class Tile(NamedTuple):
    """The block of the result that one program computes, and how.

    Attributes:
        rows, columns: its size.
        depth: how much of the inner dimension is read at a time.
        warps: groups of 32 threads that share the work.
        stages: reads under way at once, the one in use included.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Launch:
    """One kernel with its grid and every argument.

    Attributes:
        kernel: a ``triton.jit`` function with the constants ``ROWS``, ``COLUMNS`` and ``DEPTH``.
        grid: how many programs run.
        arguments: its other arguments by name; constants are among them.
        tile: the constants, warps and stages.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: Mapping[str, Any]
    tile: Tile

    @property
    def constants(self) -> dict[str, int]:
        return dict(zip(("ROWS", "COLUMNS", "DEPTH"), self.tile[:3], strict=True))

    def run(self) -> None:
        """Enqueues the kernel on the device that holds its tensors; waits for nothing."""
        device = next(a.device for a in self.arguments.values() if isinstance(a, Tensor))
        there = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
        with there:
            self.kernel[self.grid](
                **self.arguments,
                **self.constants,
                num_warps=self.tile.warps,
                num_stages=self.tile.stages,
            )


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, and so on a CPU (``TRITON_INTERPRET=1``)."""
    return bool(triton.knobs.runtime.interpret)


@cache
def capability(device: torch.device) -> int:
    """The compute capability of a CUDA device: 80 of an A100, 90 of an H100."""
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@cache
def multiprocessors(device: torch.device) -> int:
    """Of a CUDA device; 1 where kernels are interpreted, so that programs take several tiles."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def fp32_precision() -> str:
    """How fp32 is multiplied: TF32 where PyTorch's own matrix product may use it."""
    matmul = torch.backends.cuda.matmul
    # Follows the older switch too, which refuses to be read once the newer one was set.
    if hasattr(matmul, "fp32_precision"):
        return "tf32" if matmul.fp32_precision == "tf32" else "ieee"
    return "tf32" if matmul.allow_tf32 else "ieee"
