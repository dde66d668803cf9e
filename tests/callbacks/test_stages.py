"""In each stage exactly what it names learns, and nothing else keeps gradients or moments."""

from pathlib import Path

import pytest
import torch

from lightning_mono import params
from lightning_mono.checkpoints.run import read
from lightning_mono.journal import Journal
from lightning_mono.recipe import load_recipe
from lightning_mono.training import fit


def test_exactly_the_named_groups_change(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file)
    result = fit(recipe)
    folder = result.run.checkpoints
    ends = {"language": 4, "concept": 9, "alignment": 14}
    saved = {name: read(folder / f"stage={name}-step={end:08d}.ckpt") for name, end in ends.items()}
    before = saved["language"]["state_dict"]
    for stage in ("concept", "alignment"):
        after = saved[stage]["state_dict"]
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        groups = params.grouped(name for name, _ in result.assistant.model.named_parameters())
        learns = params.expand(recipe.stages[stage].train, groups)
        assert changed == {f"model.{name}" for group in learns for name in groups[group]}
        before = after

    moments = {
        stage: {
            group["name"]
            for group in saved[stage]["optimizer_states"][0]["param_groups"]
            if any(
                index in saved[stage]["optimizer_states"][0]["state"] for index in group["params"]
            )
        }
        for stage in ends
    }
    text = {"ffn", "attention", "norms", "embeddings"}
    assert moments["language"] == text
    assert moments["concept"] == {"patchifier", "experts.ffn"}
    assert moments["alignment"] == {"experts.ffn", "experts.attention", "attention"}


def test_journal_tells_stages_rates_and_samples(recipe_file: Path) -> None:
    result = fit(load_recipe(recipe_file))
    journal = Journal(result.run.journal)
    stages = journal.events("stage")
    assert [(s["stage"], s["step"]) for s in stages] == [
        ("language", 0),
        ("concept", 4),
        ("alignment", 9),
    ]
    assert all(0 < s["trainable"] < s["total"] for s in stages)
    steps = journal.events("step")
    assert [s["step"] for s in steps] == list(range(1, 15))
    assert all(s["tokens"] >= s["supervised"] > 0 and s["seconds"] > 0 for s in steps)
    assert steps[0]["lr"] == pytest.approx(0.005)  # first of two steps of warm-up
    assert list((result.run.path / "tensorboard").glob("events.out.tfevents.*"))


def test_half_a_line_in_the_journal_is_cut_off(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write("step", step=1)
    with journal.path.open("a") as file:
        file.write('{"event": "st')
    again = Journal(journal.path)
    again.write("step", step=2)
    assert [event["step"] for event in again.events("step")] == [1, 2]
