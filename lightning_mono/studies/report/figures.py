"""A study's charts: the arms beside one another, and what they cost."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_mono.evaluation.report.figures import (
    BAND,
    BLIND,
    INK,
    MODEL,
    MUTED,
    USUAL,
    house_style,
)
from lightning_mono.evaluation.report.words import count
from lightning_mono.studies.report.words import unit
from lightning_mono.studies.results import StudyResults

REFERENCES = (BLIND, USUAL, MUTED)
ROW = 0.36
"""Inches a row."""


def arms_figure(results: StudyResults, width: float, measures: list[str]) -> Figure:
    """Each arm's mean with its interval, and its seeds, a panel a measure.

    Args:
        results: of the study.
        width: in inches.
        measures: names of those that get a panel, from left to right.
    """
    with house_style():
        figure = Figure(figsize=(width, 0.95 + ROW * len(results.arms)), layout="constrained")
        panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, measures, strict=True):
            _panel(axes, results, name)
        names = [arm.arm.name for arm in results.arms]
        panels[0].set_yticks(range(len(names)), names)
        panels[0].set_ylim(len(names) - 0.4, -0.6)
        for label, arm in zip(panels[0].get_yticklabels(), results.arms, strict=True):
            label.set_color(INK)
            if arm is results.baseline:
                label.set_fontweight("bold")
    return figure


def _panel(axes: Axes, results: StudyResults, name: str) -> None:
    measure = results.measures[name]
    scale = 100 if measure.form == "percent" else 1
    base = results.baseline.means.get(name)
    if base is not None:
        axes.axvline(scale * base.mean, color=MODEL, linewidth=0.8, linestyle=(0, (4, 3)))
    for color, (label, value) in zip(REFERENCES, results.references[name].items(), strict=False):
        axes.axvline(scale * value, color=color, linewidth=1.2)
        axes.annotate(
            label,
            (scale * value, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, 2),
            textcoords="offset points",
            color=color,
            fontsize=8,
        )
    for row, arm in enumerate(results.arms):
        if arm is results.baseline:
            axes.axhspan(row - 0.5, row + 0.5, color=BAND, linewidth=0, zorder=0)
        found = arm.means.get(name)
        if found is None:
            continue
        seeds = scale * np.array(list(arm.values[name].values()))
        axes.plot(seeds, np.full(len(seeds), row), "o", color=USUAL, markersize=3.5, alpha=0.9)
        half = scale * (found.half or 0)
        axes.errorbar(
            scale * found.mean, row, xerr=half, fmt="o", color=MODEL, markersize=7, linewidth=1.8
        )
    axes.set_xlabel(f"{name} {unit(measure)}".strip())
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def cost_figure(results: StudyResults, width: float) -> Figure:
    """The headline against the parameters that learn."""
    name = results.headline
    measure = results.measures[name]
    scale = 100 if measure.form == "percent" else 1
    with house_style():
        figure = Figure(figsize=(width, 3.4), layout="constrained")
        axes = figure.subplots()
        for arm in results.arms:
            if arm.cost is None or name not in arm.means:
                continue
            found = arm.means[name]
            place = (arm.cost.trainable, scale * found.mean)
            color = MODEL if arm is not results.baseline else BLIND
            axes.errorbar(*place, yerr=scale * (found.half or 0), fmt="o", color=color, linewidth=1)
            axes.annotate(
                arm.arm.name,
                place,
                xytext=(5, 4),
                textcoords="offset points",
                fontsize=8,
                color=INK,
            )
        axes.set_xlabel("parameters that learn")
        axes.set_ylabel(f"{name} {unit(measure)}".strip())
        axes.xaxis.set_major_formatter(lambda value, _: count(value))
        axes.margins(x=0.14)
        axes.grid(axis="y")
    return figure
