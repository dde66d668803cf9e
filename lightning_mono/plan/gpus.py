"""GPUs as their data sheets describe them."""

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
        bf16: dense products in bfloat16 with sums in fp32, operations a second; data sheets often
            print twice as many, which holds for weights with every second number zero.
        fp32: products in float32 outside the tensor cores, operations a second.
        memory: GiB. Data sheets say GB for what the driver counts in GiB, but for the H200.
        source: the data sheet.
    """

    name: str
    bf16: float
    fp32: float
    memory: float
    source: str


def _gpu(name: str, bf16: float, fp32: float, memory: float, source: str) -> Gpu:
    return Gpu(name, bf16 * 1e12, fp32 * 1e12, memory, source)


GPUS: Mapping[str, Gpu] = MappingProxyType(
    {
        "a100-40": _gpu("A100 40GB", 312, 19.5, 40, "NVIDIA A100 data sheet, 2021"),
        "a100-80": _gpu("A100 80GB", 312, 19.5, 80, "NVIDIA A100 data sheet, 2021"),
        "h100": _gpu("H100 SXM", 989.4, 66.9, 80, "NVIDIA H100 architecture white paper, table 2"),
        "h100-pcie": _gpu(
            "H100 PCIe", 756, 51.2, 80, "NVIDIA H100 architecture white paper, table 2"
        ),
        "h200": _gpu("H200 SXM", 989.4, 66.9, 140, "NVIDIA H200 data sheet, 2024"),
        "b200": _gpu("B200", 2250, 75, 180, "NVIDIA HGX B200 data sheet, 2024; one of eight"),
        "l40s": _gpu("L40S", 362, 91.6, 48, "NVIDIA L40S data sheet, 2023"),
        "l4": _gpu("L4", 121, 30.3, 24, "NVIDIA L4 data sheet, 2023"),
        "a10": _gpu("A10", 125, 31.2, 24, "NVIDIA A10 data sheet, 2021"),
        "rtx6000-ada": _gpu("RTX 6000 Ada", 364.2, 91.1, 48, "NVIDIA Ada white paper, 2023"),
        "rtx4090": _gpu("RTX 4090", 165.2, 82.6, 24, "NVIDIA Ada white paper, appendix A"),
        "rtx3090": _gpu("RTX 3090", 71, 35.6, 24, "NVIDIA GA102 white paper, appendix A"),
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
