"""In each stage exactly what it names learns, and nothing else keeps gradients or moments."""

from collections.abc import Callable
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning_mono.callbacks.stages import StageScheduler

from lightning_mono import params
from lightning_mono.checkpoints.run import read
from lightning_mono.data.loader import StagedLoader
from lightning_mono.journal import Journal
from lightning_mono.model.config import PatchifierKind, VitConfig
from lightning_mono.module import MonoModule
from lightning_mono.recipe import load_recipe
from lightning_mono.stages import Optim, Stage, StageSchedule
from lightning_mono.testing import IMAGE, tiny_batch, tiny_config, tiny_model
from lightning_mono.training import FitResult, fit


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


STAGES = {
    "language": {"ffn", "attention", "norms", "embeddings"},
    "concept": {"patchifier", "experts.ffn"},
    "alignment": {"experts.ffn", "experts.attention", "attention"},
}


def test_what_is_frozen_has_no_gradient_and_no_moments_at_any_step(
    watched: Callable[..., FitResult],
) -> None:
    """Tensor by tensor; and the moments take as much memory as two copies of what trains."""
    sizes = []

    def look(trainer: Any, module: Any) -> None:
        stage = ["language"] * 4 + ["concept"] * 5 + ["alignment"] * 5
        groups = module.group_names()
        learns = {n for group in STAGES[stage[trainer.global_step - 1]] for n in groups[group]}
        state, moments = trainer.optimizers[0].state, 0
        for name, parameter in module.model.named_parameters():
            assert parameter.requires_grad is (name in learns), name
            assert (parameter.grad is not None) is (name in learns), name
            assert (parameter in state) is (name in learns), name
            if name in learns:
                held = [v for v in state[parameter].values() if v.shape == parameter.shape]
                assert sum(v.nbytes for v in held) == 2 * parameter.nbytes, name
                moments += 2 * parameter.nbytes
        assert all(parameter.requires_grad for parameter in state)
        sizes.append(moments)

    watched(look)
    language, concept, alignment = sizes[0], sizes[4], sizes[9]
    assert sizes == [language] * 4 + [concept] * 5 + [alignment] * 5
    assert concept < language / 2, "the second stage trains less and must hold less"


TOWER = {"patchifier.vit", "patchifier.projector"}


@pytest.mark.parametrize("kind", ["conv", "vit"])
def test_each_group_can_learn_alone(kind: PatchifierKind) -> None:
    """A stage a group, of all that there are: it changes every tensor of its own and no other."""
    config = tiny_config()
    assert config.patchifier is not None
    vit = VitConfig(layers=1, heads=2) if kind == "vit" else None
    config = replace(config, patchifier=replace(config.patchifier, kind=kind, vit=vit))
    module = MonoModule(tiny_model(config).train(), Optim(lr=1e-2))
    groups = module.group_names()
    absent = {"patchifier"} if kind == "vit" else TOWER
    assert set(groups) == set(params.GROUPS) - absent
    stages = StageSchedule(
        tuple(Stage(name, 1, (name,), "rows", Optim(lr=1e-2)) for name in groups)
    )
    weights = dict(module.model.named_parameters())
    before = {name: value.detach().clone() for name, value in weights.items()}
    learnt = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            group = stages.at(trainer.global_step - 1).name
            names = {name for name in weights if params.canonical(name) in groups[group]}
            changed = {n for n, value in weights.items() if not torch.equal(value, before[n])}
            assert changed == names, group
            assert {n for n, value in weights.items() if value.grad is not None} == names, group
            state = trainer.optimizers[0].state
            assert set(state) == {weights[name] for name in names}, group
            moments = [v.nbytes for held in state.values() for v in held.values() if v.ndim]
            assert sum(moments) == 2 * sum(weights[name].nbytes for name in names), group
            before.update({name: weights[name].detach().clone() for name in names})
            learnt.append(group)

    rows = [[[[5, *[IMAGE] * 4, 7, 9, 11]]], [[[8, 9, 10, 12]]]]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=stages.total_steps,
        callbacks=[StageScheduler(stages), Watch()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batches = [(lambda start: repeat(tiny_batch(rows, config)), 1)] * stages.total_steps
    trainer.fit(module, StagedLoader(batches))
    assert learnt == list(groups)


@pytest.mark.parametrize("policy", ["keep", "fresh"])
def test_moments_are_kept_or_not_as_the_stage_says(
    watched: Callable[..., FitResult], policy: str
) -> None:
    """experts.ffn goes on training from the second stage to the third; resuming is no entering."""
    counts = []

    def look(trainer: Any, module: Any) -> None:
        groups = trainer.optimizers[0].param_groups
        member = next(g["params"][0] for g in groups if g["name"] == "experts.ffn")
        state = trainer.optimizers[0].state
        counts.append(int(state[member]["step"]) if member in state else 0)

    override = f"stages.alignment.optimizer_state={policy}"
    for steps in (9, 12, 14):
        watched(look, override, f"trainer.max_steps={steps}", resume=True)
    after = [6, 7, 8, 9, 10] if policy == "keep" else [1, 2, 3, 4, 5]
    assert counts == [0, 0, 0, 0, 1, 2, 3, 4, 5, *after]


def test_parts_of_a_step_change_neither_steps_nor_samples_nor_resuming(recipe_file: Path) -> None:
    """What differs is rounding: sums of two parts, in float64 but for the cross entropy."""
    out = recipe_file.parent
    exact = ["trainer.precision=64-true", "optim.eps=1e-4"]
    parts = [f"stages.{stage}.accumulate=2" for stage in ("language", "alignment")]
    whole = fit(load_recipe(recipe_file, [*exact, f"out={out}/whole"]))
    fit(load_recipe(recipe_file, [*exact, *parts, "trainer.max_steps=6"]))
    halves = fit(load_recipe(recipe_file, [*exact, *parts]), resume=True)
    keys = ("step", "stage", "lr", "tokens", "samples", "supervised")
    told = [
        [{key: step[key] for key in keys} for step in Journal(run.run.journal).events("step")]
        for run in (whole, halves)
    ]
    assert told[0] == told[1]
    ours = dict(halves.assistant.model.named_parameters())
    for name, expected in whole.assistant.model.named_parameters():
        torch.testing.assert_close(ours[name], expected, atol=1e-6, rtol=0, msg=name)


def test_a_stage_in_tokens_ends_when_they_were_read(recipe_file: Path) -> None:
    result = fit(load_recipe(recipe_file, ["stages.concept.duration=150 tokens"]))
    steps = [s for s in Journal(result.run.journal).events("step") if s["stage"] == "concept"]
    read_so_far = [sum(s["tokens"] for s in steps[:n]) for n in range(len(steps) + 1)]
    assert read_so_far[-2] < 150 <= read_so_far[-1]


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
