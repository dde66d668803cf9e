"""A loss that is not finite stops a run before it spoils anything, and names the samples."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lightning_mono import module
from lightning_mono.checkpoints.run import latest, read, step_of
from lightning_mono.errors import TrainingError
from lightning_mono.journal import Journal
from lightning_mono.model import Batch
from lightning_mono.recipe import load_recipe
from lightning_mono.training import fit


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
