"""A run that goes on with another number of workers trains on what it would have trained on."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from lightning_mono.recipe import load_recipe
from lightning_mono.training import fit


def test_a_run_resumed_with_other_workers_ends_with_the_same_weights(recipe_file: Path) -> None:
    def run(out: str, *overrides: str, resume: bool = False) -> dict[str, torch.Tensor]:
        always = [f"out={recipe_file.parent}/{out}", "data.pictures.jpeg=[30,60]"]
        recipe = load_recipe(recipe_file, [*always, *overrides])
        return load_file(fit(recipe, resume=resume).run.path / "model" / "model.safetensors")

    whole = run("whole")
    run("parts", "data.pictures.workers=2", "trainer.max_steps=7")
    run("parts", "data.pictures.workers=0", "trainer.max_steps=11", resume=True)
    parts = run("parts", "data.pictures.workers=1", resume=True)
    assert whole.keys() == parts.keys()
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
