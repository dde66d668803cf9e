"""From what a recipe says to what it means: merged optimizer settings, stages with step counts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, replace
from typing import cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_mono.errors import RecipeError
from lightning_mono.params import ALIASES, expand
from lightning_mono.recipe.schema import ImageSection, OptimSection, Recipe
from lightning_mono.stages import Duration, Optim, Stage, StageSchedule


def merged_optim(recipe: Recipe, stage: str) -> Optim:
    """The recipe's optimizer settings with the keys that a stage overrides.

    Raises:
        RecipeError: an unknown key or a wrong type, with its full path.
    """
    base = OmegaConf.structured(recipe.optim)
    try:
        merged = OmegaConf.merge(base, recipe.stages[stage].optim)
    except OmegaConfBaseException as error:
        text = " ".join(str(error).split("\n")[0].split())
        raise RecipeError(f"stages.{stage}.optim.{error.full_key}: {text}") from error
    section = cast(OptimSection, OmegaConf.to_object(merged))
    values = asdict(section)
    values["betas"] = tuple(section.betas)
    return Optim(**values)


def merged_image(recipe: Recipe, data: str) -> ImageSection:
    """The recipe's image tiles with what a data set changes of them."""
    changed = {
        key: value for key, value in vars(recipe.data[data].image).items() if value is not None
    }
    return replace(recipe.image, **changed)


def build_stages(
    recipe: Recipe,
    groups: Iterable[str],
    steps_of: Callable[[str, Duration], int],
) -> StageSchedule:
    """Resolves every stage of a recipe.

    Args:
        groups: parameter groups that the model holds.
        steps_of: optimizer steps that a duration means on a data set (by its name).
    """
    present = tuple(groups)
    stages = []
    for name, section in recipe.stages.items():
        stages.append(
            Stage(
                name=name,
                steps=steps_of(section.data, Duration.parse(section.duration)),
                train=expand(section.train, present, f"stages.{name}.train"),
                data=section.data,
                optim=merged_optim(recipe, name),
                lr_scale=_by_group(section.lr_scale, present),
                accumulate=section.accumulate,
                fresh=section.optimizer_state == "fresh",
            )
        )
    return StageSchedule(tuple(stages)).cut(recipe.trainer.max_steps)


def _by_group(scales: Mapping[str, float], present: Collection[str]) -> dict[str, float]:
    """Factors by group: a word for several means each of them that has no factor of its own."""
    spread = {
        group: factor
        for word, factor in scales.items()
        for group in ALIASES.get(word, ())
        if group in present
    }
    return {**spread, **scales}
