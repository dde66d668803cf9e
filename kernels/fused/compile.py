"""Compiles launches for a GPU that need not be there, and reads what they would occupy on it."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from lightning_mono.kernels.fused.launch import Launch, Tile
from torch import Tensor
from triton.backends.compiler import GPUTarget

from lightning_mono.arguments import whole

TYPES = {
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.int8: "i8",
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
        name: what it computes.
        tile: rows, columns and depth, warps a block, reads under way that were asked for.
        capability: compiled for, e.g. 90.
        registers: per thread.
        stack: bytes of local memory per thread; more than 0 means that registers were spilled.
        shared: bytes per block.
        copies: asynchronous copies of 16 bytes to shared memory in the code; 0 means that nothing
            is read ahead, or only in small pieces.
        mma: the tensor-core instruction, ``wgmma``, ``mma.sync`` or None.
        occupancy: share of the multiprocessor's warps that can be resident.
    """

    name: str
    tile: Tile
    capability: int
    registers: int
    stack: int
    shared: int
    copies: int
    mma: str | None
    occupancy: float


def resources(name: str, launch: Launch, capability: int) -> Resources:
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
    return Resources(
        name,
        tile,
        capability,
        registers,
        stack,
        shared,
        copies=len(re.findall(r"cp\.async\.cg\.shared", ptx)),
        mma=next((m for m in ("wgmma", "mma.sync") if f"{m}." in ptx), None),
        occupancy=occupancy(registers, shared, tile.warps, LIMITS[capability]),
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
        "| kernel | tile | sm | warps | stages | registers | stack | shared KiB | matrix "
        "instruction | occupancy |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        size = "x".join(map(str, r.tile[:3]))
        lines.append(
            f"| {r.name} | {size} | {r.capability} | {r.tile.warps} | {r.tile.stages} "
            f"| {r.registers} | {r.stack} | {r.shared / 1024:.0f} | {r.mma} | {r.occupancy:.0%} |"
        )
    return "\n".join(lines)


def _source(launch: Launch) -> triton.compiler.ASTSource:
    """The launch as Triton would specialise it: ones are constants, multiples of 16 are known."""
    given = {**launch.arguments, **launch.constants}
    signature: dict[str, Any] = {}
    constants: dict[tuple[int, ...], Any] = {}
    known: dict[tuple[int, ...], list[list[Any]]] = {}

    def typed(value: Any, parameter: Any, path: tuple[int, ...]) -> Any:
        """Triton's name of a value's type, of a tuple's parts one by one; notes what is known."""
        if isinstance(value, tuple) and not parameter.is_constexpr:
            parts = [typed(part, parameter, (*path, at)) for at, part in enumerate(value)]
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        name, multiple = _type(value, parameter)
        if name == "constexpr":
            constants[path] = value
        elif multiple:
            known[path] = [["tt.divisibility", 16]]
        return name

    for at, parameter in enumerate(launch.kernel.params):
        signature[parameter.name] = typed(given[parameter.name], parameter, (at,))
    return triton.compiler.ASTSource(launch.kernel, signature, constants, known)


def _type(value: Any, parameter: Any) -> tuple[str, bool]:
    """Triton's name of an argument's type, and whether it is known to be a multiple of 16."""
    if isinstance(value, Tensor):
        return f"*{TYPES[value.dtype]}", True
    if parameter.is_constexpr or value is None:
        return "constexpr", False
    if value == 1 and not parameter.do_not_specialize:
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


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description="Compiles the fused kernels for an A100 and an H100 and prints what they take."
    )
    made.add_argument("--hidden", type=whole(1), default=2048)
    made.add_argument("--kv", type=whole(1), default=1024, help="columns of key and value each")
    made.add_argument("--ffn", type=whole(1), default=8192)
    made.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    made.add_argument("--experts", choices=("bfloat16", "float32"), help="visual weights' dtype")
    made.add_argument("--text", choices=("plain", "nf4"), default="plain", help="text weights")
    made.add_argument("--json", action="store_true", help="a line of JSON for each, as they come")
    return made


def main() -> None:
    """Prints a table, by default of a 2B model's kernels."""
    from lightning_mono.kernels.fused.examples import Example, every_launch

    given = parser().parse_args()
    example = Example(
        dtype=getattr(torch, given.dtype),
        visual_dtype=getattr(torch, given.experts or given.dtype),
        rounded=given.text == "nf4",
    )
    found = (
        resources(name, launch, capability)
        for capability in LIMITS
        for name, launch in every_launch(example, given.hidden, given.kv, given.ffn, capability)
    )
    if not given.json:
        print(table(found))
        return
    for one in found:
        print(json.dumps(asdict(one)), flush=True)


if __name__ == "__main__":
    main()
