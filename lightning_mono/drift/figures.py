"""Views of what moved, one function a view; each returns a Figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lightning_mono.drift.course import StageDrift
from lightning_mono.drift.measures import KINDS, Experts
from lightning_mono.params import GROUPS
from lightning_mono.style import INK, MARKS, MODEL, MUTED, SERIES, house_style

SHADES = (1e-3, 30.0)
"""Relative distances of the palest and of the darkest cell: words stay dark on all that occur."""


def experts_figure(columns: Mapping[str, Experts], title: str) -> Figure:
    """Draws how far visual experts are from their text experts: above as a relative distance,
    below as a cosine; a line a kind of weights, over layers.

    Args:
        columns: name of each column, such as a stage or an arm of a study -> its experts.
        title: of the figure.
    """
    present = {kind for experts in columns.values() for _, kind in experts}
    kinds = [kind for kind in KINDS if kind in present]
    with house_style():
        size = (1.6 + 2.5 * len(columns), 5.2)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(2, len(columns), sharex=True, sharey="row", squeeze=False)
        for column, (name, experts) in zip(panels.T, columns.items(), strict=True):
            for axes, value in zip(column, ("distance", "cosine"), strict=True):
                _lines(axes, experts, kinds, value)
            column[0].set_title(name, loc="left", size=9.5, color=INK)
            column[1].set_xlabel("layer", size=9, color=MUTED)
            column[1].xaxis.get_major_locator().set_params(integer=True)
            if not experts:
                words = {"ha": "center", "va": "center", "color": MUTED, "size": 9}
                column[0].text(0.5, 0.5, "no expert", transform=column[0].transAxes, **words)
        panels[0, 0].set_ylabel("relative distance", size=9, color=MUTED)
        panels[0, 0].set_ylim(bottom=0)
        panels[1, 0].set_ylabel("cosine", size=9, color=MUTED)
        panels[1, 0].set_ylim(top=1.02)
        drawn = [axes.get_legend_handles_labels() for axes in panels[0]]
        handles = {label: h for found in drawn for h, label in zip(*found, strict=True)}
        figure.legend(
            [handles[KINDS[kind]] for kind in kinds],
            [KINDS[kind] for kind in kinds],
            loc="outside lower left",
            ncols=8,
            frameon=False,
            fontsize=9,
        )
        figure.suptitle(title, size=10.5, color=INK, x=0.01, ha="left")
        return figure


def moved_figure(stages: Sequence[StageDrift]) -> Figure:
    """Draws which parameter groups each stage trained (framed), and how far each of them moved
    from the stage's beginning to its end, relative to its length.

    A group in which not one bit changed says so.
    """
    groups = [group for group in GROUPS if group in stages[0].moved]
    norm = LogNorm(*SHADES)
    with house_style():
        size = (2.2 + 1.6 * len(stages), 0.9 + 0.42 * len(groups))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        cells = np.full((len(groups), len(stages)), np.nan)
        for column, stage in enumerate(stages):
            for row, group in enumerate(groups):
                if distance := stage.moved[group].distance:
                    cells[row, column] = np.clip(distance, *SHADES)
                _cell(axes, row, column, stage, group)
        axes.imshow(cells, cmap="Blues", norm=norm, aspect="auto")
        axes.set_xticks(range(len(stages)), [stage.name for stage in stages], color=INK)
        axes.set_yticks(range(len(groups)), groups, color=INK)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines["bottom"].set_visible(False)
        frame = Rectangle((0, 0), 1, 1, fill=False, edgecolor=MODEL, linewidth=1.8)
        figure.legend(
            [frame], ["trained in the stage"], loc="outside lower left", frameon=False, fontsize=9
        )
        title = "How far each group moved in each stage: distance / its length at the beginning"
        figure.suptitle(title, size=10.5, color=INK, x=0.01, ha="left")
        return figure


def _lines(axes: Axes, experts: Experts, kinds: Sequence[str], value: str) -> None:
    for number, kind in enumerate(kinds):
        layers = [layer for layer, its in experts if its == kind]
        if not layers:
            continue
        axes.plot(
            layers,
            [getattr(experts[layer, kind], value) for layer in layers],
            color=SERIES[number % len(SERIES)],
            marker=MARKS[number % len(MARKS)],
            linestyle="--" if kind.startswith("ffn") else "-",
            markersize=4.5,
            linewidth=1.5,
            label=KINDS[kind],
        )
    axes.grid(axis="y")


def _cell(axes: Axes, row: int, column: int, stage: StageDrift, group: str) -> None:
    distance = stage.moved[group].distance
    text = f"{100 * distance:.2g} %" if distance else "not one bit"
    colour = INK if distance else MUTED
    axes.text(column, row, text, ha="center", va="center", size=9, color=colour)
    if group in stage.train:
        corner = (column - 0.47, row - 0.43)
        axes.add_patch(
            Rectangle(corner, 0.94, 0.86, fill=False, edgecolor=MODEL, linewidth=1.8, zorder=3)
        )
