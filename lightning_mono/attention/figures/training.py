"""A measure over a run's steps, as its journal has it."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lightning_mono.attention.figures.pieces import headline
from lightning_mono.attention.measures import MEASURES
from lightning_mono.errors import DataError
from lightning_mono.journal import Journal
from lightning_mono.style import BAND, INK, MUTED, house_style

SHADES = "viridis"
"""Layers from the first, dark, to the last, bright."""


def training_figure(journal: Path, measure: str = "image_share") -> Figure:
    """Draws a measure over the steps of a run, a line a layer, with its stages as bands.

    Points are what was read every ``trainer.attention_every`` steps from two rows of the batch;
    lines are their running median over five, within a stage.

    Args:
        journal: the run's journal.jsonl.
        measure: one of :data:`MEASURES`.

    Raises:
        DataError: the run did not note it.
    """
    events = Journal(journal, silent=True)
    found = {r["step"]: r[measure] for r in events.events("attention") if measure in r}
    if not found:
        raise DataError(f"{journal}: holds no {measure}; set trainer.attention_every")
    steps = np.array(sorted(found))
    values = np.array([found[step] for step in steps])
    starts = {r["stage"]: r["step"] for r in events.events("stage") if not r["resumed"]}
    edges = [*starts.values(), int(steps[-1])]
    colours = mpl.colormaps[SHADES](np.linspace(0, 0.88, values.shape[1]))
    with house_style():
        figure = Figure(figsize=(8.6, 3.8), layout="constrained")
        axes = figure.subplots()
        for number, (name, start, end) in enumerate(zip(starts, edges, edges[1:], strict=False)):
            if number % 2 == 0:
                axes.axvspan(start, end, color=BAND, linewidth=0, zorder=0)
            narrow = end - start < 0.12 * edges[-1]
            axes.annotate(
                name,
                ((start + end) / 2, 1),
                (0, 4),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="left" if narrow else "center",
                va="bottom",
                size=9,
                rotation=30 if narrow else 0,
            )
            inside = (steps > start) & (steps <= end)
            for layer, colour in enumerate(colours):
                line = values[inside, layer]
                axes.plot(steps[inside], line, ".", color=colour, markersize=2.5, alpha=0.45)
                label = f"layer {layer}" if number == 0 else None
                axes.plot(steps[inside], _smooth(line), color=colour, linewidth=1.8, label=label)
        axes.set_xlim(0, edges[-1])
        if MEASURES[measure].unit == "share":
            axes.set_ylim(0, 1)
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_xlabel("step", size=9, color=MUTED)
        axes.set_ylabel(MEASURES[measure].unit, size=9, color=MUTED)
        figure.legend(loc="outside right center", frameon=False, fontsize=9, labelcolor=INK)
        headline(figure, f"While it trains: {MEASURES[measure].title}")
        return figure


def _smooth(line: np.ndarray) -> np.ndarray:
    """The median of each value and the two on either side."""
    return np.array([np.median(line[max(i - 2, 0) : i + 3]) for i in range(len(line))])
