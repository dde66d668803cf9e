"""Compiles launches for a GPU that need not be there, and reads what they would occupy on it."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import triton
from lightning_mono.kernels.fused.launch import Launch
from torch import Tensor
from triton.backends.compiler import GPUTarget

TYPES = {
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.uint8: "u8",
}


@dataclass(frozen=True)
class Limits:
    """What a multiprocessor has to share among its blocks (CUDA C++ guide, compute capabilities).

    Attributes:
        shared: bytes of shared memory, of which every block costs ``reserved`` beside its own.
        registers: 32-bit registers, given to a warp 256 at a time.
        warps, blocks: at most this many resident.
    """

    shared: int
    registers: int = 65_536
    warps: int = 64
    blocks: int = 32
    reserved: int = 1024


LIMITS: Mapping[int, Limits] = {80: Limits(shared=164 * 1024), 90: Limits(shared=228 * 1024)}
"""By compute capability: the A100 and the H100."""


@dataclass(frozen=True)
class Resources:
    """What one compiled launch takes.

    Attributes:
        kernel: its name, and the rows, columns and depth of its tile.
        capability: compiled for, e.g. 90.
        registers: per thread.
        stack: bytes of local memory per thread; more than 0 means that registers were spilled.
        shared: bytes per block.
        warps: per block.
        stages: reads under way at once that were asked for.
        copies: asynchronous copies of 16 bytes to shared memory in the code; 0 means that nothing
            is read ahead, or only in small pieces.
        mma: the tensor-core instruction, ``wgmma``, ``mma.sync`` or None.
        occupancy: share of the multiprocessor's warps that can be resident.
    """

    kernel: str
    capability: int
    registers: int
    stack: int
    shared: int
    warps: int
    stages: int
    copies: int
    mma: str | None
    occupancy: float


def resources(launch: Launch, capability: int) -> Resources:
    """Compiles a launch; its tensors may be on any device, also ``meta``.

    Args:
        capability: 80 or 90.

    Raises:
        ValueError: kernels are being interpreted in this process, which leaves nothing to compile.
    """
    if not isinstance(launch.kernel, triton.JITFunction):
        raise ValueError("kernels are interpreted here; unset TRITON_INTERPRET to compile them")
    tile = launch.tile
    compiled = triton.compile(
        _source(launch),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": tile.warps, "num_stages": tile.stages},
    )
    ptx, shared = compiled.asm["ptx"], compiled.metadata.shared
    registers, stack = _usage(compiled.asm["cubin"])
    mma = next((m for m in ("wgmma", "mma.sync") if f"{m}." in ptx), None)
    return Resources(
        f"{launch.kernel.__name__.removesuffix('_kernel')} {'x'.join(map(str, tile[:3]))}",
        capability,
        registers,
        stack,
        shared,
        tile.warps,
        tile.stages,
        len(re.findall(r"cp\.async\.cg\.shared", ptx)),
        mma,
        occupancy(registers, shared, tile.warps, LIMITS[capability]),
    )


def occupancy(registers: int, shared: int, warps: int, limits: Limits) -> float:
    """Resident warps over the most there can be, as registers, shared memory and counts allow."""
    per_warp = -(-registers * 32 // 256) * 256
    blocks = min(
        limits.registers // (per_warp * warps),
        limits.shared // (shared + limits.reserved),
        limits.warps // warps,
        limits.blocks,
    )
    return blocks * warps / limits.warps


def table(rows: Iterable[Resources]) -> str:
    """A Markdown table."""
    lines = [
        "| kernel and tile | sm | warps | stages | registers | stack | shared KiB | matrix "
        "instruction | occupancy |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r.kernel} | {r.capability} | {r.warps} | {r.stages} | {r.registers} | {r.stack} "
            f"| {r.shared / 1024:.0f} | {r.mma} | {r.occupancy:.0%} |"
        )
    return "\n".join(lines)


def _source(launch: Launch) -> triton.compiler.ASTSource:
    """The launch as Triton would specialise it: ones are constants, multiples of 16 are known."""
    kernel = launch.kernel
    given = {**launch.arguments, **launch.constants}
    signature, constants, known = {}, {}, {}
    for at, parameter in enumerate(kernel.params):
        value = given[parameter.name]
        signature[parameter.name], multiple = _type(value, parameter)
        if signature[parameter.name] == "constexpr":
            constants[(at,)] = value
        elif multiple:
            known[(at,)] = [["tt.divisibility", 16]]
    return triton.compiler.ASTSource(kernel, signature, constants, known)


def _type(value: Any, parameter: Any) -> tuple[str, bool]:
    """Triton's name of an argument's type, and whether it is known to be a multiple of 16."""
    if isinstance(value, Tensor):
        return f"*{TYPES[value.dtype]}", True
    if parameter.is_constexpr or (value == 1 and not parameter.do_not_specialize):
        return "constexpr", False
    if isinstance(value, float):
        return "fp32", False
    return "i32", value % 16 == 0 and not parameter.do_not_specialize


def _usage(cubin: bytes) -> tuple[int, int]:
    """Registers and stack bytes per thread, as ``cuobjdump`` reads them."""
    tool = triton.knobs.nvidia.cuobjdump.path
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        command = [tool, "-res-usage", str(path)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    assert found is not None, text
    return int(found[1]), int(found[2])


def main() -> None:
    """Prints what the FFN kernels take at the shape of a 2B model, on an A100 and an H100."""
    from lightning_mono.kernels.fused.autotune import example, launches
    from lightning_mono.kernels.fused.tuning import defaults

    call = example(4096, 2048, 8192, torch.bfloat16, "meta")
    rows = [
        replace(
            resources(launch, capability), kernel=f"{name} {'x'.join(map(str, launch.tile[:3]))}"
        )
        for capability in LIMITS
        for name, launch in launches(call, defaults(capability, torch.bfloat16)).items()
    ]
    print(table(rows))


if __name__ == "__main__":
    main()
