"""Two processes with half the batch each train as one process does with all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lightning_mono.checkpoints.run import latest, read, step_of

pytestmark = pytest.mark.slow

# What differs is rounding: sums in another order, in float64 but for the cross entropy. Without eps
# Adam would blow up what rounds to zero on one side only.
EXACT = ["trainer.precision=64-true", "optim.eps=1e-4", "optim.grad_clip=0.5"]
EXACT += ["data.words.batch_size=4", "data.pictures.batch_size=4"]
PARTS = [f"stages.{stage}.accumulate=2" for stage in ("language", "alignment")]
TWO = ["trainer.devices=2"]


def fit(recipe: Path, name: str, *overrides: str) -> Path:
    """Runs the recipe in processes of its own, or goes on with it; the run's folder."""
    out = recipe.parent / name
    environment = dict(os.environ, PYTHONWARNINGS="ignore", OMP_NUM_THREADS="1")
    command = [sys.executable, "-m", "lightning_mono", "fit", str(recipe), "--resume"]
    command += [f"out={out}", *EXACT, *overrides]
    done = subprocess.run(
        command, env=environment, capture_output=True, timeout=300, cwd=recipe.parent
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return out


def same(one: Path, two: Path) -> None:
    """Asserts that two runs ended with the same weights."""
    ours, expected = (load_file(run / "model" / "model.safetensors") for run in (two, one))
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, atol=1e-6, rtol=0, msg=name)


@pytest.mark.parametrize("strategy", ["mono_ddp", "mono_fsdp2"])
def test_two_processes_equal_one_through_stage_boundaries(recipe_file: Path, strategy: str) -> None:
    """Gradients are clipped; the two compute their rows in parts, and layers twice."""
    one = fit(recipe_file, "one")
    chosen = [f"trainer.strategy={strategy}", "trainer.activation_checkpointing=true"]
    same(one, fit(recipe_file, "two", *TWO, *PARTS, *chosen))


def test_a_run_goes_on_with_another_number_of_devices(recipe_file: Path) -> None:
    """One process, two that share the data, two that share the model too, and one again."""
    whole = fit(recipe_file, "whole")
    sessions = {3: [], 8: TWO, 11: [*TWO, "trainer.strategy=mono_fsdp2"], 14: []}
    for steps, devices in sessions.items():
        moved = fit(recipe_file, "moved", f"trainer.max_steps={steps}", *devices)
        newest = latest(moved / "checkpoints")
        assert newest is not None
        assert step_of(newest) == read(newest)["global_step"] == steps
    same(whole, moved)
