"""Reads a study: its file, its arms, and the recipe of every run, with all problems at once."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_mono.errors import RecipeError
from lightning_mono.recipe import Recipe, load_recipe
from lightning_mono.recipe.load import STUDIES, find_recipe, read_mapping
from lightning_mono.studies.schema import StudySection


@dataclass(frozen=True)
class Arm:
    """One way to change the base recipe.

    Attributes:
        name: its choices, with commas between.
        changes: dotted recipe key -> value.
    """

    name: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """A study that can be run.

    Attributes:
        section: what the file says.
        path: of the file.
        base: path of the base recipe.
        arms: in the order of the file.
        overrides: recipe keys that the command line changes in all runs, ``key=value``.
    """

    section: StudySection
    path: Path
    base: Path
    arms: tuple[Arm, ...]
    overrides: tuple[str, ...]

    @property
    def command(self) -> str:
        """What runs it."""
        shipped = {file: name for name, file in shipped_studies().items()}
        words = [shipped.get(self.path, str(self.path)), *self.overrides]
        return f"lightning-mono ablate {shlex.join(words)}"

    def recipe(self, arm: Arm, seed: int) -> Recipe:
        """The recipe of a run.

        Raises:
            RecipeError: all that is wrong with it, one a line.
        """
        changes = {**self.section.set, **arm.changes, "seed": seed}
        words = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
        return load_recipe(self.base, [*words, *self.overrides])


def load_study(
    name: str | Path, overrides: Sequence[str] = (), seeds: Sequence[int] | None = None
) -> Study:
    """Reads a study and checks the recipe of every arm.

    Args:
        name: a YAML file, or the name of a shipped study (``placement``).
        overrides: recipe keys that all runs change, as ``key=value``.
        seeds: instead of the file's.

    Raises:
        RecipeError: every problem found, one a line, with the arm it is of.
    """
    path = find_study(name)
    section = _typed(path)
    section = replace(section, seeds=list(seeds)) if seeds else section
    beside = path.parent / section.base
    base = beside if beside.suffix in (".yaml", ".yml") and beside.is_file() else None
    arms = tuple(_arms(path, section.axes))
    study = Study(section, path, base or find_recipe(section.base), arms, tuple(overrides))
    found = list(_problems(study))
    if found:
        raise RecipeError("\n".join(f"{path}: {problem}" for problem in found))
    return study


def find_study(name: str | Path) -> Path:
    """The file of a study: a path, or a shipped one by its name."""
    path, shipped = Path(name), shipped_studies()
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path
    stem = path.with_suffix("").name if path.suffix in (".yaml", ".yml") else str(name)
    if stem in shipped:
        return shipped[stem]
    near = get_close_matches(stem, shipped, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise RecipeError(f"no study {str(name)!r}{hint} (shipped: {', '.join(shipped)})")


def shipped_studies() -> dict[str, Path]:
    """Name -> file of every study in the installed package, in order of their names."""
    root = Path(str(files("lightning_mono.recipes"))) / STUDIES
    return {path.stem: path for path in sorted(root.glob("*.yaml"))}


def _typed(path: Path) -> StudySection:
    values = read_mapping(path, "a study")
    config = OmegaConf.structured(StudySection)
    try:
        config = OmegaConf.merge(config, values)
    except OmegaConfBaseException as error:
        first = str(error).splitlines()[0]
        known = [key for key in StudySection.__annotations__ if key not in values]
        near = get_close_matches(str(error.key), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RecipeError(f"{path}: {error.full_key}: {first}{hint}") from error
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise RecipeError("\n".join(f"{path}: {key}: missing; give it" for key in missing))
    return cast(StudySection, OmegaConf.to_object(config))


def _arms(path: Path, axes: Mapping[str, Any]) -> Iterator[Arm]:
    """Every combination of the axes' choices; the first axis changes slowest."""
    choices = []
    for name, axis in axes.items():
        if isinstance(axis, list) and axis:
            prefix = "" if len(axes) == 1 else f"{name.rpartition('.')[2]} "
            choices.append([(f"{prefix}{_word(value)}", {name: value}) for value in axis])
        elif isinstance(axis, dict) and axis and all(isinstance(v, dict) for v in axis.values()):
            choices.append([(str(label), changes) for label, changes in axis.items()])
        else:
            raise RecipeError(
                f"{path}: axes.{name}: give a list of values, or choices as NAME: {{key: value}}"
            )
    for combination in product(*choices):
        changes = {key: value for _, part in combination for key, value in part.items()}
        yield Arm(", ".join(label for label, _ in combination), changes)


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _problems(study: Study) -> Iterator[str]:
    section = study.section
    names = [arm.name for arm in study.arms]
    if not section.axes:
        yield "axes: there is none, so there is nothing to compare"
        return
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"axes: two arms are called {name!r}"
    if section.baseline not in names:
        near = get_close_matches(section.baseline, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {'; '.join(names)}"
        yield f"baseline: no arm is called {section.baseline!r}; {hint}"
    if not section.seeds or len(set(section.seeds)) < len(section.seeds):
        yield f"seeds: {section.seeds} must be different numbers, one at least"
    if not section.measures:
        yield "measures: give at least one, as NAME: {path: test.accuracy}"
    for name, measure in section.measures.items():
        if measure.form not in ("percent", "number"):
            yield f"measures.{name}.form: {measure.form!r} is neither percent nor number"
        if measure.better not in ("higher", "lower"):
            yield f"measures.{name}.better: {measure.better!r} is neither higher nor lower"
    overridden = {word.partition("=")[0] for word in study.overrides}
    if "seed" in overridden:
        yield "seed: a study sets it itself; give seeds with --seeds"
    by_arm = {arm.name: list(_arm_problems(study, arm, overridden)) for arm in study.arms}
    common = [line for line in by_arm[names[0]] if all(line in o for o in by_arm.values())]
    yield from common
    for arm_name, lines in by_arm.items():
        yield from (f"arm {arm_name!r}: {line}" for line in lines if line not in common)


def _arm_problems(study: Study, arm: Arm, overridden: set[str]) -> Iterator[str]:
    for key in sorted(overridden & set(arm.changes)):
        yield f"it sets {key} itself; do not override it"
    try:
        study.recipe(arm, study.section.seeds[0] if study.section.seeds else 0)
    except RecipeError as error:
        yield from str(error).splitlines()
