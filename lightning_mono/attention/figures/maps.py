"""Whole maps of a layer, how they differ between checkpoints, and what they come to in numbers."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightning_mono.attention.figures.pieces import (
    DIFFERENCE,
    KINDS,
    bands,
    bare,
    colour_bar,
    headline,
    panel_title,
    two_sided,
)
from lightning_mono.attention.look import Look, Seen
from lightning_mono.attention.measures import MEASURES
from lightning_mono.attention.paint import HEAT, enlarged, gray_pixels
from lightning_mono.style import INK, house_style


def map_figure(look: Look, layer: int) -> Figure:
    """Draws who looks at whom in a layer, averaged over heads, with the kinds of tokens as bands.

    Shares below a ten-thousandth are drawn as that: the scale is logarithmic.
    """
    with house_style():
        figure = Figure(figsize=(7.6, 7.0), layout="constrained")
        axes = figure.subplots()
        norm = LogNorm(1e-4, 1.0)
        seen = _seen(np.clip(look.maps[layer], 1e-4, 1))
        axes.imshow(seen, cmap=HEAT, norm=norm, interpolation="nearest")
        colour_bar(figure, axes, norm, HEAT, "share of a row's attention")
        bands(figure, axes, look)
        title = f"Layer {layer}, mean over heads: what each token (down) looks at (across)"
        headline(figure, title)
        return figure


def difference_figure(before: Look, after: Look, layer: int, names: tuple[str, str]) -> Figure:
    """Draws how a layer's map and its heat on the first picture differ between two checkpoints.

    Rows of the prompt are compared, of which both have the same: what was said may differ.

    Args:
        before, after: looks at the same prompt.
        names: of the two, for the titles.

    Raises:
        ValueError: the prompts are not the same.
    """
    asked = before.prompt
    if before.tokens[:asked] != after.tokens[: after.prompt]:
        raise ValueError("the two looks are at different prompts")
    less, more = (look.maps[layer][:asked, :asked] for look in (before, after))
    change = more - less
    with house_style():
        pictures = bool(before.pictures)
        figure = Figure(figsize=(10.4 if pictures else 7.6, 5.6), layout="constrained")
        panels = figure.subplots(1, 2, width_ratios=[3, 2]) if pictures else [figure.subplots()]
        axes = panels[0]
        norm = two_sided(change)
        axes.imshow(_seen(change), cmap=DIFFERENCE, norm=norm, interpolation="nearest")
        panel_title(axes, "what each token (down) looks at (across)")
        colour_bar(figure, axes, norm, DIFFERENCE, "change in share of a row's attention")
        bands(figure, axes, before, asked)
        headline(figure, f"Layer {layer}, mean over heads: {names[1]} minus {names[0]}")
        if pictures:
            heat = before.pictures[0].heat(change[-1]).whole
            _changed_picture(figure, panels[1], before.pictures[0], heat)
        return figure


def measures_figure(look: Look) -> Figure:
    """Draws every measure by layer: the mean over heads as a line, each head as a point."""
    with house_style():
        figure = Figure(figsize=(8.6, 5.2), layout="constrained")
        panels = figure.subplots(2, 4, sharex=True).flat
        for axes, (name, by_head) in zip(panels, look.measures.items(), strict=False):
            measure = MEASURES[name]
            layers = np.arange(len(by_head))
            spread = np.repeat(layers, by_head.shape[1])
            axes.plot(spread, by_head.ravel(), ".", color=KINDS["image"], alpha=0.35, markersize=4)
            axes.plot(layers, by_head.mean(1), color=KINDS["image"], linewidth=1.8)
            axes.set_title(f"{measure.title}\n{measure.unit}", loc="left", size=9, color=INK)
            axes.grid(axis="y")
            axes.set_ylim(0, 1.04 if measure.unit == "share" else None)
            axes.xaxis.get_major_locator().set_params(integer=True)
        for axes in list(figure.axes)[len(look.measures) :]:
            axes.set_axis_off()
        for axes in figure.axes[4:7]:
            axes.set_xlabel("layer", size=9)
        figure.axes[3].xaxis.set_tick_params(labelbottom=True)
        figure.axes[3].set_xlabel("layer", size=9)
        return figure


def _changed_picture(figure: Figure, axes: Axes, seen: Seen, change: NDArray[np.float32]) -> None:
    size = (seen.image.width, seen.image.height)
    norm = two_sided(change)
    gray = gray_pixels(seen.image)
    axes.imshow(0.75 + 0.25 * gray, cmap="gray", vmin=0, vmax=1)
    axes.imshow(enlarged(change, size[1], size[0]), cmap=DIFFERENCE, norm=norm, alpha=0.75)
    bare(axes)
    panel_title(axes, "the last position of the prompt")
    colour_bar(figure, axes, norm, DIFFERENCE, "change in share a cell")


def _seen(cells: NDArray[np.float32]) -> np.ma.MaskedArray:
    """A map without the keys that come after a query, which are drawn as nothing."""
    return np.ma.masked_array(cells, np.triu(np.ones(cells.shape, bool), 1))
