"""Several models side by side: what each looks at, and what that comes to in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from lightning_mono.attention.figures.overlays import draw_picture, need_pictures
from lightning_mono.attention.figures.pieces import headline
from lightning_mono.attention.look import Look
from lightning_mono.attention.measures import MEASURES
from lightning_mono.style import INK, MARKS, MUTED, SERIES, USUAL, house_style


def layers_figure(looks: Mapping[str, Look], token: int = 0) -> Figure:
    """Lays the attention that predicted a token over the first picture: a row a model, a column a
    layer, averaged over heads.

    Each panel is as bright as where its layer looks most; its share on pictures stands above it.

    Args:
        looks: by the models' names; at the same picture.
        token: of the answer, from 0.

    Raises:
        ValueError: a prompt has no picture.
    """
    layers = next(iter(looks.values())).layers
    for look in looks.values():
        need_pictures(look)
    image = next(iter(looks.values())).pictures[0].image
    shape = min(max(image.height / image.width, 0.4), 1.6)
    with house_style():
        size = (1.7 + 1.55 * len(layers), 0.6 + (1.5 * shape + 0.3) * len(looks))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(looks), len(layers), squeeze=False)
        for row, (name, look) in zip(panels, looks.items(), strict=True):
            for axes, layer in zip(row, layers, strict=True):
                weights = look.row(layer, token)
                cells = look.pictures[0].heat(weights).whole
                draw_picture(axes, look.pictures[0], cells / max(float(cells.max()), 1e-12))
                title = f"layer {layer}: {look.image_share(weights):.0%}"
                axes.set_title(title, size=8, color=INK, pad=3)
            said = f"{name}\nsays “{look.answer}”".replace("$", r"\$")
            row[0].set_ylabel(said, rotation=0, ha="right", va="center", color=INK, size=9)
        headline(figure, "Where each layer looks as the answer begins, and how much")
        return figure


def compare_figure(
    looks: Mapping[str, Sequence[Look]], measures: Sequence[str] = tuple(MEASURES)
) -> Figure:
    """Draws measures by layer, a line a model, over all heads and the questions looked at.

    Bars are intervals of 95 % for the mean over questions, which take them to be independent.

    Args:
        looks: the models' names -> their looks, one a question, at the same layers.
        measures: names of those to draw, in this order.
    """
    across = min(len(measures), 4)
    down = -(-len(measures) // across)
    with house_style():
        figure = Figure(figsize=(2.5 * across + 0.6, 2.5 * down + 0.7), layout="constrained")
        panels = figure.subplots(down, across, squeeze=False).flat
        for axes, name in zip(panels, measures, strict=False):
            for number, (model, seen) in enumerate(looks.items()):
                middle, half = _over_questions([look.measures[name] for look in seen])
                colour = SERIES[number % len(SERIES)]
                shift = (number - (len(looks) - 1) / 2) * 0.06
                axes.errorbar(
                    np.arange(len(middle)) + shift,
                    middle,
                    half,
                    color=colour,
                    marker=MARKS[number % len(MARKS)],
                    markersize=4.5,
                    linewidth=1.5,
                    label=model,
                )
            measure = MEASURES[name]
            axes.set_title(f"{measure.title}\n{measure.unit}", loc="left", size=9, color=INK)
            axes.grid(axis="y")
            axes.set_ylim(0, 1.04 if measure.unit == "share" else None)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set_xlabel("layer", size=9, color=MUTED)
        for axes in figure.axes[len(measures) :]:
            axes.set_axis_off()
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower left", ncols=4, frameon=False, fontsize=9)
        return figure


def pointing_figure(rates: Mapping[str, NDArray[np.float64]], chance: float) -> Figure:
    """Draws how often the brightest cell holds the object, by layer; see :func:`pointing`.

    Args:
        rates: (layers,) each, from the first layer on, by what the line is called.
        chance: what cells drawn at random would get.
    """
    with house_style():
        figure = Figure(figsize=(6.6, 3.6), layout="constrained")
        axes = figure.subplots()
        for number, (name, line) in enumerate(rates.items()):
            colour, mark = SERIES[number % len(SERIES)], MARKS[number % len(MARKS)]
            axes.plot(np.arange(len(line)), line, color=colour, marker=mark, label=name)
        axes.axhline(chance, color=USUAL, linestyle=":", label="at random")
        axes.set_xlabel("layer", size=9, color=MUTED)
        axes.set_ylabel("share of questions", size=9, color=MUTED)
        axes.set_ylim(-0.02, 1.04)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        figure.legend(loc="outside right center", frameon=False, fontsize=9)
        headline(figure, "How often the cell that is looked at most holds some of the object")
        return figure


def _over_questions(
    found: Sequence[NDArray[np.float64]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean over questions and half of its interval, (layers,) each."""
    by_question = np.stack([by_head.mean(1) for by_head in found])
    count = len(by_question)
    spread = by_question.std(0, ddof=1) if count > 1 else np.zeros(by_question.shape[1])
    return by_question.mean(0), 1.96 * spread / np.sqrt(count)
