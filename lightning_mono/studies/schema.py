"""A study file's keys with their types, defaults and meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lightning_mono.recipe.schema import MISSING


@dataclass
class MeasureSection:
    """A figure of each run that the study compares."""

    path: str = MISSING
    """Where it stands in a run's metrics.json, with dots: test.by_kind.color.accuracy."""
    form: str = "percent"
    """percent: a share from 0 to 1, shown in percent; number: shown as it is."""
    better: str = "higher"
    """higher or lower."""
    references: dict[str, str] = field(default_factory=dict)
    """What it is to be read beside, such as the most frequent answer: label -> path."""


@dataclass
class StudySection:
    """Arms that differ from a base recipe, each run with several seeds."""

    name: str = MISSING
    question: str = MISSING
    """What is to be found out, in a sentence; the report's headline."""
    base: str = MISSING
    """The recipe that all runs start from: a shipped one, or a YAML file beside this one."""
    set: dict[str, Any] = field(default_factory=dict)
    """Recipe keys that all runs change: dotted key -> value."""
    axes: dict[str, Any] = field(default_factory=dict)
    """What differs. Either a recipe key and its values, ``model.experts.ffn: [none, all]``; or a
    name and choices, each with the keys it sets, ``tuning: {full: {stages.a.train: [attention]}}``.
    Every combination of all axes is an arm. A stage or data set that is set to null is left out."""
    baseline: str = MISSING
    """The arm that the others are compared with, by its name: its choices, with commas between."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    measures: dict[str, MeasureSection] = field(default_factory=dict)
    """By name; the first is the one that the study is decided by."""
    notes: str = ""
    """What the study does not show; the report ends with it."""
