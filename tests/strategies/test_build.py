"""Strategies by name, and what they refuse before the first batch."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from lightning_mono.errors import RecipeError
from lightning_mono.journal import Journal
from lightning_mono.recipe import load_recipe
from lightning_mono.recipe.validate import STRATEGIES
from lightning_mono.strategies import (
    KernelStrategyMixin,
    MonoDDPStrategy,
    MonoFSDP2Strategy,
    MonoSingleDeviceStrategy,
    build_strategy,
)
from lightning_mono.strategies.kernel import computes_in
from lightning_mono.testing import tiny_recipe
from lightning_mono.training import fit

NAMES = {
    "mono_single": MonoSingleDeviceStrategy,
    "mono_ddp": MonoDDPStrategy,
    "mono_fsdp2": MonoFSDP2Strategy,
}


def trainer(strategy: str, devices: int) -> pl.Trainer:
    return pl.Trainer(accelerator="cpu", devices=devices, strategy=strategy, logger=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_trainer_knows_them_by_name(name: str) -> None:
    made = trainer(name, 1 if name == "mono_single" else 2).strategy
    assert type(made) is NAMES[name]
    assert isinstance(made, KernelStrategyMixin)
    assert made.kernel == "auto"


def test_recipes_know_the_same_names() -> None:
    assert {"auto", *NAMES} == set(STRATEGIES)
    for name, strategy in NAMES.items():
        built = build_strategy(name, "masked_dense", "cpu", 2)
        assert type(built) is strategy
        assert isinstance(built, KernelStrategyMixin)
        assert built.kernel == "masked_dense"
    assert type(build_strategy("auto", "auto", "cpu", 1)) is MonoSingleDeviceStrategy
    assert type(build_strategy("auto", "auto", "cpu", 2)) is MonoDDPStrategy


def test_fsdp1_is_refused_and_names_fsdp2() -> None:
    with pytest.raises(RecipeError, match=r"^[^\n]*mono_fsdp2$"):
        trainer("mono_fsdp", 2)
    with pytest.raises(RecipeError, match=r"trainer\.strategy: 'mono_fsdp'.*'mono_fsdp2'"):
        tiny_recipe("trainer.strategy=mono_fsdp")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["trainer.kernel=triton"], "kernel triton cannot run: it needs a CUDA GPU"),
        (["trainer.kernel=grouped", "model.scratch.ffn_size=42"], "kernel grouped cannot run"),
    ],
)
def test_a_kernel_that_cannot_run_fails_before_the_first_batch(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], line: str
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    # No attention experts: they would be grouped, whatever the size of the FFN is.
    recipe = load_recipe(
        recipe_file,
        [*overrides, "model.experts.attention=none", "stages.alignment.train=[experts]"],
    )
    with pytest.raises(RecipeError, match=f"^{line}[^\n]*; use gathered, or auto$"):
        fit(recipe)
    assert Journal(Path(recipe.out) / "journal.jsonl").events("step") == []


def test_the_choice_is_told_in_one_line(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    told: list[str] = []
    monkeypatch.setattr("lightning_mono.strategies.kernel.rank_zero_info", told.append)
    result = fit(load_recipe(recipe_file, ["trainer.max_steps=1"]))
    assert told == [
        "kernel: gathered in 6 blocks with visual weights; not triton: it needs a CUDA GPU and "
        "this is a cpu device; not grouped: it gains nothing on cpu"
    ]
    assert (result.run.model / "config.json").is_file()


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("32-true", torch.float64),
        ("bf16-mixed", torch.bfloat16),
        ("bf16-true", torch.bfloat16),
        ("64-true", torch.float64),
    ],
)
def test_kernels_are_asked_about_what_is_multiplied(precision: str, dtype: torch.dtype) -> None:
    """Plain precision leaves the weights as they are, here in float64."""
    plugin = pl.Trainer(accelerator="cpu", precision=precision, logger=False).precision_plugin
    assert computes_in(plugin, torch.nn.Linear(2, 2, dtype=torch.float64)) == dtype
