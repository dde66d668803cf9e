"""Adds up the runs of a study: means, intervals, differences from the baseline, costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_mono.errors import RecipeError
from lightning_mono.studies.cells import Cell
from lightning_mono.studies.costs import Cost, cost_of
from lightning_mono.studies.load import Arm, Study
from lightning_mono.studies.schema import MeasureSection
from lightning_mono.studies.statistics import Difference, Interval, differences, interval


@dataclass(frozen=True)
class ArmResults:
    """One arm over its seeds.

    Attributes:
        arm: what it changes.
        seeds: that are done.
        values: measure -> seed -> value.
        means: measure -> mean and interval.
        differences: measure -> less the baseline; None for the baseline itself, and without a
            seed that both have.
        cost: of its first run that is done, with the mean of the seconds; None without any.
        failures: seed -> why it failed.
    """

    arm: Arm
    seeds: tuple[int, ...]
    values: Mapping[str, Mapping[int, float]]
    means: Mapping[str, Interval]
    differences: Mapping[str, Difference | None]
    cost: Cost | None
    failures: Mapping[int, str]


@dataclass(frozen=True)
class StudyResults:
    """A study as far as it is done.

    Attributes:
        study: what was asked.
        arms: in its order.
        references: measure -> label -> what it is read beside, a mean over all runs.
        cells: all runs, done or not.
    """

    study: Study
    arms: tuple[ArmResults, ...]
    references: Mapping[str, Mapping[str, float]]
    cells: tuple[Cell, ...]

    @property
    def measures(self) -> Mapping[str, MeasureSection]:
        return self.study.section.measures

    @property
    def headline(self) -> str:
        """The measure that the study is decided by."""
        return next(iter(self.measures))

    @property
    def baseline(self) -> ArmResults:
        return next(a for a in self.arms if a.arm.name == self.study.section.baseline)


def add_up(study: Study, cells: Sequence[Cell], failures: Mapping[str, str]) -> StudyResults:
    """Reads the figures of all runs that are done.

    Args:
        cells: all runs.
        failures: folder of a run -> why it failed.

    Raises:
        RecipeError: a run has no figure where a measure says there is one.
    """
    found = {
        (cell.arm.name, cell.seed): json.loads(cell.run.metrics.read_text(encoding="utf-8"))
        for cell in cells
        if cell.done
    }
    section = study.section
    values: dict[str, dict[str, dict[int, float]]] = {
        measure: {arm.name: {} for arm in study.arms} for measure in section.measures
    }
    for cell in cells:
        metrics = found.get((cell.arm.name, cell.seed))
        for name, measure in section.measures.items() if metrics is not None else ():
            values[name][cell.arm.name][cell.seed] = _figure(metrics, measure.path, name, cell)
    less = {name: differences(by_arm, section.baseline) for name, by_arm in values.items()}
    arms = []
    for arm in study.arms:
        own = [cell for cell in cells if cell.arm.name == arm.name]
        by_measure = {name: by_arm[arm.name] for name, by_arm in values.items()}
        arms.append(
            ArmResults(
                arm=arm,
                seeds=tuple(cell.seed for cell in own if cell.done),
                values=by_measure,
                means={n: interval(list(v.values())) for n, v in by_measure.items() if v},
                differences={name: by_arm.get(arm.name) for name, by_arm in less.items()},
                cost=_cost([cell for cell in own if cell.done]),
                failures={c.seed: failures[c.recipe.out] for c in own if c.recipe.out in failures},
            )
        )
    return StudyResults(study, tuple(arms), _references(study, list(found.values())), tuple(cells))


def _figure(metrics: Any, path: str, name: str, cell: Cell) -> float:
    value = _found(metrics, path)
    if value is None:
        raise RecipeError(f"measures.{name}.path: {cell.run.metrics} has no number {path}")
    return value


def _cost(done: Sequence[Cell]) -> Cost | None:
    if not done:
        return None
    costs = [cost_of(cell) for cell in done]
    seconds = sum(cost.seconds for cost in costs) / len(costs)
    first = costs[0]
    return Cost(first.parameters, first.trainable, first.flops, first.memory, first.tokens, seconds)


def _references(study: Study, found: Sequence[Any]) -> dict[str, dict[str, float]]:
    """Means over the runs that have the figure: a measure may be read beside what few have."""
    references: dict[str, dict[str, float]] = {}
    for name, measure in study.section.measures.items():
        references[name] = {}
        for label, path in measure.references.items():
            values = [value for metrics in found if (value := _found(metrics, path)) is not None]
            if values:
                references[name][label] = sum(values) / len(values)
    return references


def _found(metrics: Any, path: str) -> float | None:
    """The number at a dotted path, if there is one."""
    for key in path.split("."):
        metrics = metrics.get(key) if isinstance(metrics, dict) else None
    if isinstance(metrics, bool) or not isinstance(metrics, int | float):
        return None
    return float(metrics)
