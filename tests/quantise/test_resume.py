"""Runs beside rounded text that are killed, and go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_mono.checkpoints.folder import load_model, save_model
from lightning_mono.checkpoints.run import latest, read
from lightning_mono.errors import CheckpointError
from lightning_mono.training import fit

from .recipes import BACKBONE, recipe

KILLED = """
import os, signal, sys
from lightning_mono.callbacks.progress import StageProgress
from lightning_mono.recipe import load_recipe
from lightning_mono.training import fit

def hook(self, trainer, *args, step=StageProgress.on_train_batch_end):
    step(self, trainer, *args)
    if trainer.global_step == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

StageProgress.on_train_batch_end = hook
fit(load_recipe(sys.argv[1], [f"out={sys.argv[2]}"]))
"""


def test_a_killed_run_ends_with_the_same_weights(folder: Path) -> None:
    whole = fit(recipe(folder, BACKBONE)).run
    out = folder / "killed"
    command = [sys.executable, "-c", KILLED, str(folder / "rounded.yaml"), str(out), "5"]
    environment = dict(os.environ, PYTHONWARNINGS="ignore")
    done = subprocess.run(command, env=environment, capture_output=True, timeout=300, cwd=folder)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    newest = latest(out / "checkpoints")
    assert newest is not None
    assert not (out / "model").exists()
    saved = read(newest)
    assert saved["state_dict"]["model.layers.0.ffn.text.up.weight"].dtype == torch.uint8
    killed = recipe(folder, BACKBONE, f"out={out}")
    resumed = fit(killed, resume=True).run
    ours, theirs = (load_model(run.model).state_dict() for run in (resumed, whole))
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def test_a_run_goes_on_with_the_bits_it_began_with(folder: Path) -> None:
    fit(recipe(folder, BACKBONE, "trainer.max_steps=3"))
    for scheme in ("int8", "none"):
        with pytest.raises(CheckpointError, match="not as the recipe has it") as caught:
            fit(recipe(folder, BACKBONE, f"model.quantize={scheme}"), resume=True)
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="stages before step 3 are not those"):
        fit(recipe(folder, BACKBONE, "optim.name=adamw"), resume=True)


def test_a_backbone_that_was_replaced_is_not_exported(folder: Path) -> None:
    fit(recipe(folder, BACKBONE))
    model = load_model(folder / "language")
    model.layers[0].ffn.text.up.weight.data *= 2  # type: ignore[union-attr, operator]
    save_model(model, folder / "language")
    with pytest.raises(CheckpointError, match="put the backbone back"):
        fit(recipe(folder, BACKBONE), resume=True)
