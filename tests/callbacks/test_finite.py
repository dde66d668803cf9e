"""A loss that is not finite stops a run before it spoils anything, and names the samples."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lightning_mono import module
from lightning_mono.checkpoints.run import latest, read, step_of
from lightning_mono.data.loader import stage_loader
from lightning_mono.errors import TrainingError
from lightning_mono.journal import Journal
from lightning_mono.model import Batch
from lightning_mono.recipe import load_recipe
from lightning_mono.runs import RunFolder
from lightning_mono.training import Session, fit


@pytest.mark.parametrize(("bad", "says"), [("loss", "the loss is nan"), ("gradient", "norm is")])
def test_it_stops_before_the_update_and_goes_on_as_if_nothing_had_been(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, bad: str, says: str
) -> None:
    out = recipe_file.parent
    fit(load_recipe(recipe_file, [f"out={out}/whole"]))
    loss_of, seen = module.next_token_loss, []

    def poisoned(model: object, batch: Batch, *args: torch.Tensor) -> torch.Tensor:
        loss = loss_of(model, batch, *args)  # type: ignore[arg-type]
        seen.append(batch.samples)
        if len(seen) != 8:
            return loss
        if bad == "loss":
            return loss * float("nan")
        loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    monkeypatch.setattr(module, "next_token_loss", poisoned)
    with pytest.raises(TrainingError) as caught:
        fit(load_recipe(recipe_file))
    monkeypatch.setattr(module, "next_token_loss", loss_of)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"step 8: {says}") or says in line
    assert seen[-1][0] in line
    newest = latest(out / "run" / "checkpoints")
    assert newest is not None
    assert str(newest) in line
    assert step_of(newest) == read(newest)["global_step"] == 7
    assert all(v.isfinite().all() for v in read(newest)["state_dict"].values())
    (event,) = Journal(out / "run" / "journal.jsonl").events("not_finite")
    assert (event["step"], event["samples"]) == (8, seen[-1])
    steps = Journal(out / "run" / "journal.jsonl").events("step")
    assert [step["step"] for step in steps] == list(range(1, 8))

    fit(load_recipe(recipe_file), resume=True)
    one, two = (load_file(out / n / "model" / "model.safetensors") for n in ("whole", "run"))
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["mono_ddp", "mono_fsdp2"])
def test_all_processes_stop_at_the_step_that_is_bad_in_one(
    recipe_file: Path, strategy: str
) -> None:
    """The second of two has it; the samples of both are named, and both go on from there."""
    settings = f"trainer: {{devices: 2, strategy: {strategy}, "
    recipe_file.write_text(recipe_file.read_text().replace("trainer: {", settings))
    run = recipe_file.parent / "run"
    script = str(Path(__file__).with_name("poisoned.py"))
    environment = dict(os.environ, PYTHONWARNINGS="ignore", OMP_NUM_THREADS="1")

    def ends(*command: str) -> subprocess.CompletedProcess:
        """Its pipes close when all processes have ended, so none is left waiting for another."""
        return subprocess.run(
            [sys.executable, *command],
            env=environment,
            capture_output=True,
            timeout=240,
            cwd=run.parent,
        )

    done = ends(script, str(recipe_file), "1", "8")
    assert done.returncode == 2, done.stderr.decode()[-2000:]
    (event,) = Journal(run / "journal.jsonl").events("not_finite")
    assert (event["step"], event["what"]) == (8, "the loss is nan")
    lines = [
        line for line in done.stderr.decode().splitlines() if "step 8: the loss is nan" in line
    ]
    # Each process says so, unless it is ended along with the first.
    assert lines, "no process says why it stops"
    newest = latest(run / "checkpoints")
    assert newest is not None
    assert all(str(newest) in line and event["samples"][0] in line for line in lines)
    assert step_of(newest) == read(newest)["global_step"] == 7
    assert all(v.isfinite().all() for v in read(newest)["state_dict"].values())
    # The batch that is named is the one that is read next: all of it, not one process' share.
    recipe = load_recipe(recipe_file, ["trainer.devices=1", "trainer.strategy=auto"])
    session = Session(recipe, RunFolder(run), Journal(run / "journal.jsonl"))
    batch = next(iter(stage_loader(session.data["pictures"], start=3)))
    assert sorted(event["samples"]) == sorted(batch.samples)

    done = ends("-m", "lightning_mono", "fit", str(recipe_file), "--resume")
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    steps = [step["step"] for step in Journal(run / "journal.jsonl").events("step")]
    assert steps == list(range(1, 15))
