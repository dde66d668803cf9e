"""A study's charts: the arms beside one another, and what they cost."""

from __future__ import annotations

from collections import Counter

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_mono.evaluation.report.words import count
from lightning_mono.studies.report.words import unit
from lightning_mono.studies.results import StudyResults
from lightning_mono.style import (
    BAND,
    BLIND,
    INK,
    MODEL,
    USUAL,
    house_style,
)

REFERENCES = (BLIND, USUAL, INK)
ROW = 0.36
"""Inches a row."""

WIDE_ENOUGH = 6.0
"""Inches from which a legend has columns."""


def arms_figure(results: StudyResults, width: float, measures: list[str]) -> Figure:
    """Each arm's mean with its interval, and its seeds, a panel a measure.

    Args:
        results: of the study.
        width: in inches.
        measures: names of those that get a panel, from left to right.
    """
    with house_style():
        height = 1.1 + ROW * len(results.arms)
        figure = Figure(figsize=(width, height), layout="constrained")
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
        found = [axes.get_legend_handles_labels() for axes in panels]
        lines = {
            label: h for handles, labels in found for h, label in zip(handles, labels, strict=True)
        }
        columns = 1 if width < WIDE_ENOUGH else 4
        figure.legend(
            list(lines.values()),
            list(lines),
            loc="outside lower center",
            ncols=columns,
            frameon=False,
        )
    return figure


def _panel(axes: Axes, results: StudyResults, name: str) -> None:
    """One measure: the lines that arms are read beside, and a row an arm."""
    measure = results.measures[name]
    scale = 100 if measure.form == "percent" else 1
    base = results.baseline.means.get(name)
    if base is not None:
        label = f"{results.baseline.arm.name} (baseline)"
        axes.axvline(scale * base.mean, color=MODEL, lw=0.9, ls=(0, (4, 3)), label=label)
    labels = list(dict.fromkeys(label for found in results.references.values() for label in found))
    for label, value in results.references[name].items():
        color = REFERENCES[labels.index(label) % len(REFERENCES)]
        axes.axvline(scale * value, color=color, linewidth=1.4, label=label)
    for row, arm in enumerate(results.arms):
        if arm is results.baseline:
            axes.axhspan(row - 0.5, row + 0.5, color=BAND, linewidth=0, zorder=0)
        found = arm.means.get(name)
        if found is None:
            continue
        seeds = scale * np.array(list(arm.values[name].values()))
        axes.plot(seeds, np.full(len(seeds), row + 0.27), "|", color=INK, ms=6, mew=1.2)
        half = scale * (found.half or 0)
        axes.errorbar(scale * found.mean, row, xerr=half, fmt="o", color=MODEL, ms=6, lw=1.8)
    if measure.form == "percent":
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, -2), min(high, 102))
    axes.set_xlabel(f"{name} {unit(measure)}".strip())
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def cost_figure(results: StudyResults, width: float) -> Figure:
    """The headline against the parameters that learn; arms by their numbers in the table."""
    name = results.headline
    measure = results.measures[name]
    scale = 100 if measure.form == "percent" else 1
    with house_style():
        figure = Figure(figsize=(width, 3.2), layout="constrained")
        axes = figure.subplots()
        beside: Counter[int] = Counter()
        for number, arm in enumerate(results.arms, 1):
            if arm.cost is None or name not in arm.means:
                continue
            place = (arm.cost.trainable, scale * arm.means[name].mean)
            is_baseline = arm is results.baseline
            axes.plot(*place, "o", color=BLIND if is_baseline else MODEL, markersize=7)
            # Arms of one size stand above one another; their numbers side by side.
            offset = (7 + 9 * beside[arm.cost.trainable], 3)
            beside[arm.cost.trainable] += 1
            axes.annotate(str(number), place, xytext=offset, textcoords="offset points", color=INK)
        axes.set_xlabel("parameters that learn")
        axes.set_ylabel(f"{name} {unit(measure)}".strip())
        axes.xaxis.set_major_formatter(lambda value, _: count(value))
        axes.xaxis.set_major_locator(MaxNLocator(4 if width >= WIDE_ENOUGH else 2))
        axes.margins(x=0.1, y=0.12)
        axes.grid(axis="y")
    return figure
