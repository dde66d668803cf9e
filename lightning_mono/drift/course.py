"""A run's curriculum from the inside: what trained in each stage, and what moved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_mono import build
from lightning_mono.backbones import load_backbone
from lightning_mono.drift.measures import Experts, Moved, Weights, by_group, from_text
from lightning_mono.errors import CheckpointError
from lightning_mono.model import MonoModel
from lightning_mono.params import GROUPS, expand, grouped
from lightning_mono.recipe import Recipe
from lightning_mono.retention.readers import backbone_of, targets
from lightning_mono.runs import run_of


@dataclass(frozen=True)
class StageDrift:
    """One stage of a run.

    Attributes:
        name: of the stage; ``whole run`` where only the exported model is left.
        train: parameter groups that it trained.
        moved: group -> how far, from the stage's beginning to its end.
        experts: how far visual experts are at the stage's end from the text weights that they were
            copied from.
    """

    name: str
    train: tuple[str, ...]
    moved: dict[str, Moved]
    experts: Experts


def beginning(run: str | Path) -> MonoModel:
    """The model that a run began with, before its first step, in fp32 on the CPU.

    It is made again: the text LLM that the run names, visual experts that are copies of its
    weights, and the patchifier that the run's seed draws.

    Args:
        run: the run's folder.

    Raises:
        CheckpointError: the run made its language model from nothing, or began with the weights of
            another run; or what it began with is not there.
        RecipeError: it is no run.
    """
    folder, recipe = run_of(run)
    if recipe.model.init_from is not None:
        raise CheckpointError(
            f"{folder.path} began with the weights of {recipe.model.init_from}, not with copies of "
            "its text weights; look at that run"
        )
    if recipe.model.pretrained is not None:
        return build.pretrained_model(recipe).model.float()
    if recipe.model.backbone is None:
        raise CheckpointError(
            f"{folder.path} made its language model from nothing; its experts were copied from "
            "random weights, which it did not keep"
        )
    backbone = load_backbone(backbone_of(folder, recipe))
    return build.build_model(recipe, backbone).model.float().eval()


def course(run: str | Path) -> Iterator[StageDrift]:
    """Reads the checkpoints of a run's stages, one after the other.

    Three models are held at a time: the one that the run began with, and a stage's beginning and
    end. Weights are compared in fp32; a run in bf16-true rounds its weights before the first step,
    which counts as a move.

    Args:
        run: the run's folder.

    Raises:
        CheckpointError: no stage has ended yet, or as :func:`beginning`.
        RecipeError: it is no run.
    """
    folder, recipe = run_of(run)
    start = before = _weights(beginning(run))
    for load in targets(str(folder.path)):
        reader = load()
        exported = reader.name == "model"
        if exported and before is not start:
            return  # what the last stage ended with
        now = _weights(reader.model)
        yield StageDrift(
            name="whole run" if exported else reader.name,
            train=_trained(recipe, reader.name, now),
            moved=by_group(now, before),
            experts=from_text(now, start),
        )
        before = now


def _weights(model: MonoModel) -> Weights:
    return {name: weight.detach() for name, weight in model.named_parameters()}


def _trained(recipe: Recipe, stage: str, weights: Weights) -> tuple[str, ...]:
    """The groups that a stage trains; of the exported model, those that any stage does."""
    present = grouped(weights)
    stages = [stage] if stage in recipe.stages else list(recipe.stages)
    train = {g for name in stages for g in expand(recipe.stages[name].train, present)}
    return tuple(group for group in GROUPS if group in train)
