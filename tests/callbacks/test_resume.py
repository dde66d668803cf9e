"""A run that is killed, wherever, ends with the weights of a run that was not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning_mono.callbacks.stages import StageScheduler
from safetensors.torch import load_file

from lightning_mono import module
from lightning_mono.checkpoints.run import AtomicCheckpointIO, latest, read, step_of
from lightning_mono.errors import CheckpointError
from lightning_mono.model import Batch
from lightning_mono.recipe import load_recipe
from lightning_mono.training import fit

# Runs the recipe in a process that kills itself: at the end of a step, before anything is saved or
# after, or in the middle of writing a checkpoint.
KILLED = """
import os, signal, sys
import torch
from lightning_mono.callbacks.checkpoints import PeriodicCheckpoint
from lightning_mono.callbacks.progress import StageProgress
from lightning_mono.recipe import load_recipe
from lightning_mono.training import fit

recipe, where, step = sys.argv[1], sys.argv[2], int(sys.argv[3])

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def killing(method):
    def hook(self, trainer, *args):
        method(self, trainer, *args)
        if trainer.global_step == step:
            die()
    return hook

if where == "before":
    StageProgress.on_train_batch_end = killing(StageProgress.on_train_batch_end)
elif where == "after":
    PeriodicCheckpoint.on_train_batch_end = killing(PeriodicCheckpoint.on_train_batch_end)
else:
    save = torch.save
    def torn(checkpoint, path, *args, **kwargs):
        save(checkpoint, path, *args, **kwargs)
        if checkpoint["global_step"] == step:
            with open(path, "r+b") as file:
                file.truncate(os.path.getsize(path) // 2)
            die()
    torch.save = torn
fit(load_recipe(recipe), resume=True)
"""


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.parametrize(
    ("where", "step"),
    [
        ("before", 7),  # in the middle of a stage, one step after a checkpoint
        ("before", 4),  # on a boundary, before the stage's end is saved
        ("after", 9),  # on a boundary, after it was saved
        ("writing", 6),  # a periodic checkpoint half written
        ("writing", 9),  # a stage-end checkpoint half written
    ],
)
def test_killed_run_ends_with_the_same_weights(recipe_file: Path, where: str, step: int) -> None:
    out = recipe_file.parent
    fit(load_recipe(recipe_file, [f"out={out}/whole"]))
    killed = load_recipe(recipe_file, [f"out={out}/killed"])
    copy = recipe_file.with_name("killed.yaml")
    copy.write_text(recipe_file.read_text().replace(f"{out}/run", f"{out}/killed"))
    environment = dict(os.environ, PYTHONWARNINGS="ignore")
    command = [sys.executable, "-c", KILLED, str(copy), where, str(step)]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=300, cwd=out)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    newest = latest(out / "killed" / "checkpoints")
    assert newest is None or step_of(newest) <= step
    assert not (out / "killed" / "model").exists()

    fit(killed, resume=True)

    whole, resumed = weights(out / "whole"), weights(out / "killed")
    assert whole.keys() == resumed.keys()
    different = [name for name in whole if not torch.equal(whole[name], resumed[name])]
    assert different == []


def test_another_past_is_refused(recipe_file: Path) -> None:
    fit(load_recipe(recipe_file, ["trainer.max_steps=6"]))
    changed = load_recipe(recipe_file, ["stages.language.optim.lr=5e-3"])
    with pytest.raises(Exception, match="stages before step 6 are not those"):
        fit(changed, resume=True)


def test_other_samples_than_those_that_were_read_are_refused(recipe_file: Path) -> None:
    def refused(data: str, *changes: str) -> None:
        with pytest.raises(CheckpointError, match=rf"^[^\n]*data\.{data} does not give[^\n]*$"):
            fit(load_recipe(recipe_file, changes), resume=True)

    fit(load_recipe(recipe_file, ["trainer.max_steps=3"]))
    for change in ("data.words.batch_size=4", "data.words.loss=square", "seed=1"):
        refused("words", change)
    # What no stage has read yet may still change, and belongs to the run from then on.
    changed = "data.pictures.sequence_length=40"
    newest = latest(
        fit(load_recipe(recipe_file, [changed, "trainer.max_steps=6"]), resume=True).run.checkpoints
    )
    assert newest is not None
    assert step_of(newest) == 6
    refused("pictures")


def test_a_run_that_was_cut_short_goes_on_with_any_number_of_loader_workers(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, loss_of = recipe_file.parent, module.next_token_loss
    seen: list[list[str]] = []

    def noting(model: object, batch: Batch, *args: torch.Tensor) -> torch.Tensor:
        seen.append(batch.samples)
        return loss_of(model, batch, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "next_token_loss", noting)
    fit(load_recipe(recipe_file, [f"out={out}/whole"]))
    expected, seen[:] = list(seen), []
    for steps, workers in ((6, 0), (14, 2)):
        chosen = [f"data.{name}.workers={workers}" for name in ("words", "pictures")]
        fit(load_recipe(recipe_file, [f"trainer.max_steps={steps}", *chosen]), resume=True)
    assert seen == expected
    whole, resumed = weights(out / "whole"), weights(out / "run")
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


def test_a_checkpoint_that_contradicts_itself_is_refused(recipe_file: Path) -> None:
    """The first is what an older version wrote, whose steps another counter of Lightning has."""

    def uncounted(saved: dict) -> None:
        loop = saved["loops"]["fit_loop"]["epoch_loop.manual_optimization.optim_step_progress"]
        for counter in loop.values():
            counter.update(dict.fromkeys(counter, 0))

    def unread(saved: dict) -> None:
        saved["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]["batches"] = 5

    def misplaced(saved: dict) -> None:
        saved["callbacks"]["StageScheduler"]["index"] = 0

    newest = latest(fit(load_recipe(recipe_file, ["trainer.max_steps=6"])).run.checkpoints)
    assert newest is not None
    whole = newest.read_bytes()
    changes = {
        "0 optimizer steps": uncounted,
        "5 batches read": unread,
        "stage number 0": misplaced,
    }
    for what, change in changes.items():
        newest.write_bytes(whole)
        saved = read(newest)
        change(saved)
        AtomicCheckpointIO().save_checkpoint(saved, newest)
        line = rf"^[^\n]*after step 6 but counts {what};[^\n]*$"
        with pytest.raises(CheckpointError, match=line):
            fit(load_recipe(recipe_file), resume=True)


def test_state_is_plain_data() -> None:
    from lightning_mono.stages import Stage, StageSchedule

    schedule = StageSchedule((Stage("one", 3, ("patchifier",), "data"),))
    scheduler = StageScheduler(schedule)
    scheduler.load_state_dict({"index": 0, "train": ["patchifier"]})
    assert scheduler.state_dict() == {"index": 0, "train": ["patchifier"]}
