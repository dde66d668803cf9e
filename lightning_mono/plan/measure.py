"""The peak memory of a recipe's stages as it is: each is run for a few steps, in its own process.

What is measured is the real run: data, model, loader, trainer, callbacks. On a GPU it is what
PyTorch has allocated at most. On a CPU it is the highest resident size while the stage trains, less
what stands apart (:data:`lightning_mono.plan.memory.APART`): what the process held beside the
model's weights when training began, such as libraries, tokenizer and index of the data, and the
pages of files, of libraries and chunks of data, which the system can have back. Workers that load
data are processes of their own.

glibc's allocator keeps freed blocks below 32 MiB for later, in a heap that the moments cut up, so
that a process holds more than its tensors. How much more is chance, and none of a plan's business:
measured is by default with the allocator giving freed blocks back (:data:`GIVING_BACK`).

    python -m lightning_mono.plan.measure RECIPE STAGE STEPS [key=value ...]

runs in the allocator's own way, unless the environment says otherwise.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lightning_mono.errors import UserError

STEPS = 3
"""Moments exist from the first step's end on, and all that a stage needs from the second."""

GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""What has glibc map each block from 64 KiB on by itself, and unmap it when it is freed."""


@dataclass(frozen=True)
class Measured:
    """Bytes on the first device.

    Attributes:
        training: at most while the stage trains: weights and all that comes and goes.
        apart: of the process beside that; 0 on a GPU.
    """

    training: int
    apart: int


def measured(
    recipe: str | Path,
    overrides: Sequence[str],
    stage: str,
    environment: Mapping[str, str] = GIVING_BACK,
) -> Measured:
    """What a stage of a recipe takes.

    Args:
        environment: variables of the process that runs it; by default :data:`GIVING_BACK`.

    Raises:
        UserError: the stage cannot be run.
    """
    command = [sys.executable, "-m", __name__, str(recipe), stage, str(STEPS), *overrides]
    variables = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=variables)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it was killed: out of memory?"]
        raise UserError(f"stages.{stage} cannot be measured: {said[-1]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _run(name: str, stage: str, steps: int, overrides: Sequence[str]) -> Measured:
    """Runs the first steps of a stage in this process."""
    import torch

    from lightning_mono.journal import Journal
    from lightning_mono.recipe import load_recipe
    from lightning_mono.recipe.schema import EvaluationSection
    from lightning_mono.runs import open_run
    from lightning_mono.training import Session

    class Training(Session):
        """A session without what comes after: export would map the checkpoint into memory."""

        def measured(self) -> Measured:
            on_gpu = torch.cuda.is_available() and self.recipe.trainer.accelerator != "cpu"
            if on_gpu:
                self._train(None)
                return Measured(training=torch.cuda.max_memory_allocated(), apart=0)
            state = self.mono.model.state_dict().values()
            weights = sum(t.numel() * t.element_size() for t in state)
            before = resident("RssAnon") - weights
            Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
            self._train(None)
            apart = before + resident("RssFile")
            return Measured(training=resident("VmHWM") - apart, apart=apart)

    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe(name, [*overrides, f"out={folder}/run"])
        if stage not in recipe.stages:
            raise UserError(f"{name} has no stage {stage} (there: {', '.join(recipe.stages)})")
        section = replace(recipe.stages[stage], duration=f"{steps} steps")
        recipe = replace(recipe, stages={stage: section}, evaluation=EvaluationSection())
        run = open_run(recipe)
        return Training(recipe, run, Journal(run.journal, silent=True)).measured()


def resident(key: str) -> int:
    """Bytes: VmHWM, the highest resident size; RssAnon and RssFile, its parts as they are now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    _name, _stage, _steps, *_overrides = sys.argv[1:]
    try:
        print(json.dumps(asdict(_run(_name, _stage, int(_steps), _overrides))))
    except UserError as error:
        sys.exit(str(error))
