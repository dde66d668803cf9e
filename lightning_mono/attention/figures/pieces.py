"""What the views have in common: titles, kinds of tokens along the axes, bars of colours, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from lightning_mono.attention.look import Look
from lightning_mono.checkpoints.atomic import replacing
from lightning_mono.style import INK, house_style

KINDS = {"system": "#999999", "image": "#0072b2", "question": "#e69f00", "answer": "#009e73"}
"""Colours of the kinds of tokens."""

DIFFERENCE = "PuOr_r"
NAMED = 44
"""Columns whose words are written on the axes, at most; more would overlap."""


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG; the file appears whole or not at all."""
    with house_style():
        FigureCanvasAgg(figure)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150, facecolor="white")


def bands(figure: Figure, axes: Axes, look: Look, columns: int | None = None) -> None:
    """The kinds of tokens along both axes, named; words too where there is room."""
    columns = len(look.tokens) if columns is None else columns
    width = max(0.012 * columns, 0.5)
    start = -0.5 - 1.4 * width
    found: dict[str, Rectangle] = {}
    for segment in look.segments:
        if segment.start >= columns:
            continue
        at, length = segment.start - 0.5, min(segment.stop, columns) - segment.start
        colour = KINDS[segment.kind]
        for corner, wide, high in (
            ((at, start), length, width),
            ((start, at), width, length),
        ):
            band = Rectangle(corner, wide, high, color=colour, linewidth=0, clip_on=False)
            axes.add_patch(band)
            found.setdefault(segment.kind, band)
        if at > 0:
            for line in (axes.axvline, axes.axhline):
                line(at, color="white", linewidth=0.7, alpha=0.8)
    axes.set_xlim(start, columns - 0.5)
    axes.set_ylim(columns - 0.5, start)
    names = [kind if kind != "system" else "system prompt" for kind in found]
    figure.legend(
        list(found.values()), names, loc="outside lower left", ncols=4, frameon=False, fontsize=9
    )
    axes.spines["bottom"].set_visible(False)
    if columns <= NAMED:
        words = [short(text) for text in look.tokens[:columns]]
        axes.set_xticks(range(columns), words, rotation=90, size=6.5)
        axes.set_yticks(range(columns), words, size=6.5)
    axes.tick_params(length=0)


def colour_bar(figure: Figure, axes: Axes, norm: Normalize, cmap: str, label: str) -> None:
    """A bar beside the axes; of a difference, ticks that do not lie over each other."""
    bar = figure.colorbar(ScalarMappable(norm, cmap), ax=axes, shrink=0.8, label=label)
    if isinstance(norm, SymLogNorm):
        most = float(norm.vmax or 0.0)
        ticks = [-most, -most / 10, 0.0, most / 10, most]
        bar.set_ticks(ticks, labels=[f"{tick:+.2g}" if tick else "0" for tick in ticks])
        bar.minorticks_off()
    bar.outline.set_visible(False)


def two_sided(change: NDArray[np.float32]) -> SymLogNorm:
    """Both ways alike; logarithmic, for most changes are far smaller than the greatest."""
    most = max(float(np.abs(change).max()), 1e-6)
    return SymLogNorm(most / 100, vmin=-most, vmax=most)


def headline(figure: Figure, text: str) -> None:
    """The figure's title, at its left edge."""
    layout = figure.get_layout_engine()
    assert isinstance(layout, ConstrainedLayoutEngine)
    layout.set(w_pad=0.12, h_pad=0.08)
    figure.suptitle(text, size=10.5, color=INK, x=0.01, ha="left")


def panel_title(axes: Axes, text: str) -> None:
    """The title of one of a figure's panels."""
    axes.set_title(text, loc="left", size=9.5, color=INK)


def bare(axes: Axes) -> None:
    """Takes ticks and frame away, which say nothing beside a picture."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def quoted(look: Look, token: int, most: int = 24) -> str:
    """A token of the answer by its words and its number."""
    return f"“{short(look.said[token].strip(), most)}” (token {token})"


def short(text: str, most: int = 10) -> str:
    """A token's words as an axis can hold them; a dollar sign would begin a formula."""
    text = "".join(c if c.isprintable() else "□" for c in text.replace("\n", "⏎"))
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return text.replace("$", r"\$")
