"""How many runs fit on this machine at once, and what each of them gets of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lightning_mono.plan import plan
from lightning_mono.plan.memory import APART
from lightning_mono.recipe import Recipe

PROCESS = 2 * 2**30
"""Bytes that a run takes on the host beside its tensors: libraries, data, what it measures with."""


@dataclass(frozen=True)
class Slot:
    """What one run at a time gets: environment variables that keep others out of it."""

    environment: Mapping[str, str]


def slots(recipe: Recipe, jobs: int | None = None) -> list[Slot]:
    """One slot for each run that can go on at the same time.

    On GPUs a run gets as many as its recipe says; on a CPU each gets a share of the cores, as many
    runs as memory has room for.

    Args:
        recipe: of the largest run.
        jobs: so many, whatever there seems to be room for.
    """
    if recipe.trainer.accelerator != "cpu" and torch.cuda.is_available():
        return _on_gpus(recipe.trainer.devices, jobs)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    fitting = min(cores or 1, max(1, _free_bytes() // _needed(recipe)))
    count = jobs or fitting
    threads = max(1, (cores or 1) // count)
    return [Slot({"OMP_NUM_THREADS": str(threads)})] * count


def _on_gpus(each: int, jobs: int | None) -> list[Slot]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    count = jobs or max(1, len(names) // each)
    shares = [[names[(slot * each + i) % len(names)] for i in range(each)] for slot in range(count)]
    return [Slot({"CUDA_VISIBLE_DEVICES": ",".join(share)}) for share in shares]


def _needed(recipe: Recipe) -> int:
    """Bytes of a run on a CPU."""
    on_cpu = replace(recipe, trainer=replace(recipe.trainer, accelerator="cpu"))
    stages = plan(on_cpu, (), 1.0).stages
    return int(max(stage.memory.total for stage in stages) + APART + PROCESS)


def _free_bytes() -> int:
    """Memory that programs can still have; where the system does not say, all one could wish."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 2**60
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
