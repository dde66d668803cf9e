"""The peak memory of a recipe's stages as it is: each is run for a few steps, in its own process.

What is measured is the real run: data, model, loader, trainer, callbacks. On a CPU it is the
highest resident size from the beginning of training on, less that of the process before it had a
model; on a GPU, what PyTorch has allocated at most.

    python -m lightning_mono.plan.measure RECIPE STAGE STEPS [key=value ...]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lightning_mono.errors import UserError

STEPS = 3
"""Moments exist from the first step's end on, and gradients of a step before in the second."""


def measured(recipe: str | Path, overrides: Sequence[str], stage: str) -> int:
    """Bytes that a stage of a recipe takes at most on the first device.

    Raises:
        UserError: the stage cannot be run.
    """
    command = [sys.executable, "-m", __name__, str(recipe), stage, str(STEPS), *overrides]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it was killed: out of memory?"]
        raise UserError(f"stages.{stage} cannot be measured: {said[-1]}")
    return int(json.loads(done.stdout.splitlines()[-1])["bytes"])


def _run(name: str, stage: str, steps: int, overrides: Sequence[str]) -> int:
    """Runs the first steps of a stage in this process: the bytes at their peak."""
    import torch

    from lightning_mono.journal import Journal
    from lightning_mono.recipe import load_recipe
    from lightning_mono.recipe.schema import EvaluationSection
    from lightning_mono.runs import open_run
    from lightning_mono.training import Session

    class Training(Session):
        """A session without what comes after: export would map the checkpoint into memory."""

        def only(self) -> None:
            self._train(None)

    before = _resident("VmRSS")
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe(name, [*overrides, f"out={folder}/run"])
        section = replace(recipe.stages[stage], duration=f"{steps} steps")
        recipe = replace(recipe, stages={stage: section}, evaluation=EvaluationSection())
        run = open_run(recipe)
        session = Training(recipe, run, Journal(run.journal, silent=True))
        on_gpu = torch.cuda.is_available() and recipe.trainer.accelerator in ("auto", "gpu", "cuda")
        if not on_gpu:
            Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        session.only()
    return torch.cuda.max_memory_allocated() if on_gpu else _resident("VmHWM") - before


def _resident(key: str) -> int:
    """VmRSS, the resident size in bytes, or VmHWM, the highest there was."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    _name, _stage, _steps, *_overrides = sys.argv[1:]
    try:
        print(json.dumps({"bytes": _run(_name, _stage, int(_steps), _overrides)}))
    except UserError as error:
        sys.exit(str(error))
