"""A run's curriculum from the inside: what trained in each stage, and what moved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lightning_mono.drift.measures import Experts, Moved, Weights, by_group, from_text
from lightning_mono.errors import CheckpointError
from lightning_mono.params import GROUPS, expand, grouped
from lightning_mono.recipe import Recipe
from lightning_mono.retention.readers import targets, untouched
from lightning_mono.runs import run_of


@dataclass(frozen=True)
class StageDrift:
    """One stage of a run.

    Attributes:
        name: of the stage; ``whole run`` where only the exported model is left.
        train: parameter groups that it trained.
        moved: group -> how far, from the stage's beginning to its end. What a run draws at random
            (its patchifier) is missing in the first.
        experts: how far visual experts are at the stage's end from the text weights that they were
            copied from.
    """

    name: str
    train: tuple[str, ...]
    moved: dict[str, Moved]
    experts: Experts


def course(run: str | Path) -> Iterator[StageDrift]:
    """Reads the checkpoints of a run's stages, one after the other.

    Three models are held at a time: the one that the run began with, and a stage's beginning and
    end. Weights are compared in fp32; a run in bf16-true rounds its text weights before the first
    step, which counts as a move.

    Args:
        run: the run's folder.

    Raises:
        CheckpointError: no stage has ended yet, or what the run began with is not there.
        RecipeError: it is no run.
    """
    folder, recipe = run_of(run)
    if recipe.model.init_from is not None:
        raise CheckpointError(
            f"{folder.path} began with the weights of {recipe.model.init_from}, not with copies of "
            "its text weights; look at that run"
        )
    if recipe.model.backbone is None and recipe.model.pretrained is None:
        raise CheckpointError(
            f"{folder.path} made its language model from nothing; its experts were copied from "
            "random weights, which it did not keep"
        )
    loading = targets(str(folder.path))
    origin = untouched(str(folder.path)).model.state_dict()
    before: Weights | None = None
    for load in loading:
        reader = load()
        if reader.name == "model" and before is not None:
            return  # what the last stage ended with
        now = {name: weight.detach() for name, weight in reader.model.named_parameters()}
        yield StageDrift(
            name="whole run" if reader.name == "model" else reader.name,
            train=_trained(recipe, reader.name, now),
            moved=by_group(now, _begun(now, origin) if before is None else before),
            experts=from_text(now, origin),
        )
        before = now


def _begun(now: Weights, origin: Weights) -> dict[str, Tensor]:
    """What a run begins with: the text LLM, and visual experts that are copies of it."""
    begun = {}
    for name in now:
        source = name if name in origin else name.replace(".visual", ".text")
        if source in origin:
            begun[name] = origin[source]
    return begun


def _trained(recipe: Recipe, stage: str, weights: Weights) -> tuple[str, ...]:
    """The groups that a stage trains; of the exported model, those that any stage does."""
    present = grouped(weights)
    stages = [stage] if stage in recipe.stages else list(recipe.stages)
    train = {g for name in stages for g in expand(recipe.stages[name].train, present)}
    return tuple(group for group in GROUPS if group in train)
