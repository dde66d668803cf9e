"""Recipes that round text: runs, exports, and what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_mono.backbones.shards import Weights
from lightning_mono.checkpoints.folder import load_model
from lightning_mono.errors import RecipeError
from lightning_mono.params import TEXT_PATH, grouped
from lightning_mono.testing import (
    tiny_recipe,
)
from lightning_mono.training import fit

from .recipes import BACKBONE, PRETRAINED, events, recipe
from .rounding import SCHEMES


def text_of(path: Path) -> dict[str, Tensor]:
    """The stored text weights of a monolithic model."""
    state = load_model(path, dtype=torch.float32).state_dict()
    return {name: state[name] for group, names in grouped(state).items()
            if group in TEXT_PATH for name in names}  # fmt: skip


@pytest.mark.parametrize(("start", "source"), [(BACKBONE, "language"), (PRETRAINED, "model")])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_run_trains_beside_rounded_text_and_exports_the_full_one(
    folder: Path, start: str, source: str, scheme: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = fit(recipe(folder, start, f"model.quantize={scheme}"))
    assert all(event["logits_identical"] for event in events(result.run.path, "retention"))
    assert len(events(result.run.path, "retention")) == 3

    (noted,) = events(result.run.path, "quantised")
    before, after = noted["bytes_before"], noted["bytes_after"]
    assert noted["scheme"] == scheme
    assert before["ffn"] > 3 * after["ffn"]  # type: ignore[index]
    assert before["experts.ffn"] == after["experts.ffn"]  # type: ignore[index]
    assert f"{scheme}: text 0." in capsys.readouterr().out

    original, exported = text_of(folder / source), text_of(result.run.model)
    vocabulary = len(original["embed.weight"])  # image tokens have rows of their own behind these
    for name, value in original.items():
        assert torch.equal(exported[name][: len(value)] if len(value) == vocabulary
                           else exported[name], value), name  # fmt: skip
    # What was measured is what was exported: no rounded weight is left in the assistant.
    held = result.assistant.model.state_dict()
    stored = load_model(result.run.model).state_dict()
    assert held.keys() == stored.keys()
    assert all(torch.equal(held[name], value) for name, value in stored.items())


def test_the_export_is_laid_out_as_that_of_a_run_without(folder: Path) -> None:
    shapes = []
    for scheme in ("none", "nf4"):
        run = fit(recipe(folder, BACKBONE, f"model.quantize={scheme}", f"out={folder}/{scheme}",
                         "trainer.precision=bf16-true")).run  # fmt: skip
        weights = Weights(run.model)
        shapes.append({name: weights.read(name) for name in weights.files})
    plain, rounded_run = shapes
    assert {n: (v.shape, v.dtype) for n, v in plain.items()} == {
        n: (v.shape, v.dtype) for n, v in rounded_run.items()
    }
    trained = ("_ve.", "vision_model", "mlp1", "visual")
    for name, value in plain.items():
        if not any(piece in name for piece in trained):
            assert torch.equal(rounded_run[name], value), name


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["model.quantize=nf5"], "model.quantize: 'nf5' is none of none, nf4, int8"),
        (["stages.concept.train=[patchifier, ffn]"], "stages.concept.train: 'ffn' holds text"),
        (["stages.alignment.train=[everything]"], "stages.alignment.train: 'everything' holds"),
        (["trainer.kernel=grouped"], "trainer.kernel: grouped does not read nf4; use gathered"),
        (["trainer.strategy=mono_fsdp2"], "trainer.strategy: mono_fsdp2 does not shard nf4"),
        (["trainer.strategy=mono_fsdp2"], "optim.name: adamw8bit needs whole tensors"),
        (["optim.name=adam8"], "optim.name: 'adam8' is none of adamw, adamw8bit"),
        (["stages.concept.optim={name: adamw}"], "concept.optim.name: one optimizer serves all"),
        (["trainer.precision=64-true"], "adamw8bit computes in fp32"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(
    folder: Path, overrides: Sequence[str], says: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(folder, BACKBONE, *overrides)
    assert says in str(caught.value)
    assert all(line.startswith(str(folder)) for line in str(caught.value).splitlines())


def test_a_model_from_scratch_is_not_rounded() -> None:
    with pytest.raises(RecipeError, match="train a new model in a recipe of its own"):
        tiny_recipe(
            "model.quantize=nf4", "stages.second.train=[experts]", "stages.second.lr_scale={}"
        )
