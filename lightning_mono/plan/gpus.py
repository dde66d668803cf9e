"""GPUs as their makers describe them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

from lightning_mono.errors import RecipeError


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        name: as people say it.
        bf16: dense products in bfloat16 with sums in fp32, operations a second. Data sheets often
            print twice as many, "with sparsity": for weights of which every second number is zero.
        fp32: products in float32 outside the tensor cores, operations a second.
        memory: GiB, as the driver counts. Data sheets say GB for it; where the two differ, the
            source says so.
        source: of these figures.
    """

    name: str
    bf16: float
    fp32: float
    memory: float
    source: str


def _gpu(name: str, bf16: float, fp32: float, memory: float, source: str) -> Gpu:
    return Gpu(name, bf16 * 1e12, fp32 * 1e12, memory, source)


A100 = "NVIDIA A100 data sheet (nvidia-a100-datasheet-us-nvidia-1758950-r4)"
HOPPER = "NVIDIA H100 architecture white paper, table 2"
ADA = "NVIDIA Ada GPU architecture white paper 2.1"

GPUS: Mapping[str, Gpu] = MappingProxyType(
    {
        "a100-40": _gpu("A100 40GB", 312, 19.5, 40, A100),
        "a100-80": _gpu("A100 80GB", 312, 19.5, 80, A100),
        "h100": _gpu("H100 SXM", 989.4, 66.9, 80, HOPPER),
        "h100-pcie": _gpu("H100 PCIe", 756, 51.2, 80, HOPPER),
        "h200": _gpu(
            "H200 SXM", 989.4, 66.9, 140, "NVIDIA H200 data sheet; 143,771 MiB by nvidia-smi"
        ),
        "b200": _gpu(
            "B200", 2250, 80, 179, "NVIDIA Blackwell technical brief, HGX B200; 179 GiB as rented"
        ),
        "l40s": _gpu("L40S", 362.05, 91.6, 48, "NVIDIA L40S data sheet"),
        "l4": _gpu("L4", 121, 30.3, 24, ADA),
        "a10": _gpu("A10", 125, 31.2, 24, "NVIDIA A10 data sheet (a10-datasheet.pdf)"),
        "rtx4090": _gpu("RTX 4090", 165.2, 82.6, 24, ADA),
    }
)
"""Name in a command -> the GPU."""

SHOWN = ("a100-40", "a100-80", "h100", "h200", "l40s", "rtx4090")
"""What a plan is shown for where nobody asks for others."""


def find_gpus(names: Sequence[str]) -> list[Gpu]:
    """The GPUs of these names; those of ``SHOWN`` where there are none.

    Raises:
        RecipeError: a name that is not in the table.
    """
    found = []
    for name in names or SHOWN:
        if name.lower() not in GPUS:
            near = get_close_matches(name.lower(), GPUS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise RecipeError(f"--gpu {name}: not in the table{hint} (there: {', '.join(GPUS)})")
        found.append(GPUS[name.lower()])
    return found
