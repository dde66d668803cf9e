"""Views of a look, one function a view; each returns a Figure.

A share of attention is always drawn in `paint.HEAT`, a difference from purple (less) over white to
orange (more). Kinds of tokens have the colours of Okabe and Ito, and are named beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from lightning_mono.attention.look import Look, Row, Seen
from lightning_mono.attention.paint import HEAT, blend, enlarged, gray_pixels
from lightning_mono.attention.places import Heat
from lightning_mono.checkpoints.atomic import replacing
from lightning_mono.evaluation.report.figures import INK, house_style

KINDS = {"system": "#999999", "image": "#0072b2", "question": "#e69f00", "answer": "#009e73"}
"""Colours of the kinds of tokens."""

DIFFERENCE = "PuOr_r"
NAMED = 44
"""Columns whose words are written on the axes, at most; more would overlap."""

SIDE = 384
"""Longest side of a picture as it is drawn, in pixels."""

Cells = NDArray[np.float32]


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
        _colour_bar(figure, axes, norm, HEAT, "share of a row's attention")
        _bands(figure, axes, look)
        title = f"Layer {layer}, mean over heads: what each token (down) looks at (across)"
        _headline(figure, title)
        return figure


def overlay_figure(look: Look, layer: int, token: int, head: int | None = None) -> Figure:
    """Lays the attention that predicted a token of the answer over each picture.

    For each picture: whole, the tiles apart, and the thumbnail where it has one.

    Args:
        layer: one of the look's.
        token: of the answer, from 0.
        head: from 0; by default the average over all.
    """
    row = look.row(layer, token, head)
    heads = "mean over heads" if head is None else f"head {head}"
    return row_figure(look, row, f"Layer {layer}, {heads}, as it says {_quoted(look, token)}")


def rollout_figure(look: Look, token: int) -> Figure:
    """Lays what reaches a token of the answer through all layers over each picture.

    Attention rollout (Abnar and Zuidema 2020); see :class:`Rollout`.
    """
    row = look.rollout[look.prompt - 1 + token]
    return row_figure(look, row, f"Rollout through all layers to {_quoted(look, token)}")


def row_figure(look: Look, row: Row, title: str) -> Figure:
    """Lays any row of attention, (columns,), over each picture; see :func:`overlay_figure`.

    Raises:
        ValueError: the prompt has no picture.
    """
    _need_pictures(look)
    with house_style():
        figure = Figure(figsize=(8.6, 0.9 + 3.3 * len(look.pictures)), layout="constrained")
        parts = figure.subfigures(len(look.pictures), 1, squeeze=False)[:, 0]
        for part, seen in zip(parts, look.pictures, strict=True):
            heat = seen.heat(row)
            most = max(float(heat.whole.max()), 1e-12)
            panels = 3 if heat.thumbnail is not None else 2
            whole, tiles, *rest = part.subplots(1, panels)
            _picture(whole, seen, heat.whole / most)
            _title(whole, f"whole picture: {heat.whole.sum():.1%} of attention")
            _tiles(tiles, seen, heat, most)
            if heat.thumbnail is not None:
                _picture(rest[0], seen, heat.thumbnail / most, square=True)
                _title(rest[0], f"thumbnail: {heat.thumbnail.sum():.1%}")
            norm = Normalize(0, 100 * most)
            label = "share of attention a cell, %"
            part.colorbar(ScalarMappable(norm, HEAT), ax=[whole, tiles, *rest], label=label)
        _headline(figure, title)
        return figure


def heads_figure(look: Look, layer: int, token: int) -> Figure:
    """Lays the attention of each head of a layer over the first picture, one panel a head.

    Each head is as bright as where it looks most; its share on pictures stands above it.
    """
    _need_pictures(look)
    rows = look.heads[layer][:, token]
    titles = [f"head {h}: {look.image_share(row):.0%}" for h, row in enumerate(rows)]
    title = f"Layer {layer}, as it says {_quoted(look, token)}: each head's share on pictures"
    return _panels(look, list(rows), titles, title)


def film_figure(look: Look, layer: int, head: int | None = None) -> Figure:
    """Lays the attention over the first picture, one panel a token of the answer."""
    _need_pictures(look)
    rows = [look.row(layer, token, head) for token in range(len(look.said))]
    titles = [
        f"{_quoted(look, token, 12)}: {look.image_share(row):.0%}" for token, row in enumerate(rows)
    ]
    heads = "mean over heads" if head is None else f"head {head}"
    title = f"Layer {layer}, {heads}: each token of the answer and its share on pictures"
    return _panels(look, rows, titles, title)


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
        norm = _two_sided(change)
        axes.imshow(_seen(change), cmap=DIFFERENCE, norm=norm, interpolation="nearest")
        _title(axes, "what each token (down) looks at (across)")
        _colour_bar(figure, axes, norm, DIFFERENCE, "change in share of a row's attention")
        _bands(figure, axes, before, asked)
        _headline(figure, f"Layer {layer}, mean over heads: {names[1]} minus {names[0]}")
        if pictures:
            heat = before.pictures[0].heat(change[-1]).whole
            _changed_picture(figure, panels[1], before.pictures[0], heat)
        return figure


def measures_figure(look: Look) -> Figure:
    """Draws every measure by layer: the mean over heads as a line, each head as a point."""
    from lightning_mono.attention.measures import MEASURES

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


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG; the file appears whole or not at all."""
    with house_style():
        FigureCanvasAgg(figure)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150, facecolor="white")


# -- pieces ---------------------------------------------------------------------------------


def _panels(look: Look, rows: Sequence[Row], titles: Sequence[str], title: str) -> Figure:
    """The first picture once a row of attention, side by side."""
    seen = look.pictures[0]
    across = min(len(rows), 6)
    down = -(-len(rows) // across)
    shape = min(max(seen.image.height / seen.image.width, 0.4), 1.6)
    with house_style():
        size = (max(1.5 * across, 6.4), 0.5 + (1.5 * shape + 0.35) * down)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(down, across, squeeze=False).flat
        for axes, row, name in zip(panels, rows, titles, strict=False):
            cells = seen.heat(row).whole
            _picture(axes, seen, cells / max(float(cells.max()), 1e-12))
            axes.set_title(name, size=8, color=INK, pad=3)
        for axes in figure.axes[len(rows) :]:
            axes.set_axis_off()
        _headline(figure, title)
        return figure


def _picture(axes: Axes, seen: Seen, relative: Cells, *, square: bool = False) -> None:
    """A picture under attention from 0 to 1; square as the model gets a thumbnail."""
    image = seen.image.copy()
    image.thumbnail((SIDE, SIDE))
    if square:
        image = image.resize((SIDE // 2, SIDE // 2))
    scale = -(-max(relative.shape) // min(image.size)) if min(image.size) < SIDE // 4 else 1
    scale = max(scale, -(-SIDE // 2 // max(image.size)))
    image = image.resize((image.width * scale, image.height * scale), 0)
    gray = gray_pixels(image)
    axes.imshow(blend(gray, enlarged(relative, image.height, image.width)))
    _bare(axes)


def _tiles(axes: Axes, seen: Seen, heat: Heat, most: float) -> None:
    """The tiles as the model gets them, with gaps between them."""
    mosaic = seen.mosaic
    tile = max(SIDE // max(mosaic.columns, mosaic.rows), 2 * mosaic.grid)
    size = (tile * mosaic.columns, tile * mosaic.rows)
    gray = gray_pixels(seen.image.resize(size))
    drawn = blend(gray, enlarged(heat.tiles / most, size[1], size[0]))
    gap = max(tile // 12, 2)
    shape = (size[1] + gap * (mosaic.rows - 1), size[0] + gap * (mosaic.columns - 1), 3)
    apart = np.full(shape, 255, np.uint8)
    for row in range(mosaic.rows):
        for column in range(mosaic.columns):
            top, left = row * (tile + gap), column * (tile + gap)
            part = drawn[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
            apart[top : top + tile, left : left + tile] = part
    axes.imshow(apart)
    _bare(axes)
    count = mosaic.columns * mosaic.rows
    _title(axes, f"{count} tile{'s' if count > 1 else ''}: {heat.tiles.sum():.1%}")


def _changed_picture(figure: Figure, axes: Axes, seen: Seen, change: Cells) -> None:
    size = (seen.image.width, seen.image.height)
    norm = _two_sided(change)
    gray = gray_pixels(seen.image)
    axes.imshow(0.75 + 0.25 * gray, cmap="gray", vmin=0, vmax=1)
    axes.imshow(enlarged(change, size[1], size[0]), cmap=DIFFERENCE, norm=norm, alpha=0.75)
    _bare(axes)
    _title(axes, "the last position of the prompt")
    _colour_bar(figure, axes, norm, DIFFERENCE, "change in share a cell")


def _bands(figure: Figure, axes: Axes, look: Look, columns: int | None = None) -> None:
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
        words = [_short(text) for text in look.tokens[:columns]]
        axes.set_xticks(range(columns), words, rotation=90, size=6.5)
        axes.set_yticks(range(columns), words, size=6.5)
    axes.tick_params(length=0)


def _colour_bar(figure: Figure, axes: Axes, norm: Normalize, cmap: str, label: str) -> None:
    bar = figure.colorbar(ScalarMappable(norm, cmap), ax=axes, shrink=0.8, label=label)
    if isinstance(norm, SymLogNorm):
        most = float(norm.vmax or 0.0)
        ticks = [-most, -most / 10, 0.0, most / 10, most]
        bar.set_ticks(ticks, labels=[f"{tick:+.2g}" if tick else "0" for tick in ticks])
        bar.minorticks_off()
    bar.outline.set_visible(False)


def _two_sided(change: NDArray[np.float32]) -> SymLogNorm:
    """Both ways alike; logarithmic, for most changes are far smaller than the greatest."""
    most = max(float(np.abs(change).max()), 1e-6)
    return SymLogNorm(most / 100, vmin=-most, vmax=most)


def _seen(cells: NDArray[np.float32]) -> np.ma.MaskedArray:
    """A map without the keys that come after a query, which are drawn as nothing."""
    return np.ma.masked_array(cells, np.triu(np.ones(cells.shape, bool), 1))


def _headline(figure: Figure, text: str) -> None:
    layout = figure.get_layout_engine()
    assert isinstance(layout, ConstrainedLayoutEngine)
    layout.set(w_pad=0.12, h_pad=0.08)
    figure.suptitle(text, size=10.5, color=INK, x=0.01, ha="left")


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", size=9.5, color=INK)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _need_pictures(look: Look) -> None:
    if not look.pictures:
        raise ValueError("the prompt has no picture to lay attention over")


def _quoted(look: Look, token: int, most: int = 24) -> str:
    return f"“{_short(look.said[token].strip(), most)}” (token {token})"


def _short(text: str, most: int = 10) -> str:
    """A token's words as an axis can hold them; a dollar sign would begin a formula."""
    text = "".join(c if c.isprintable() else "□" for c in text.replace("\n", "⏎"))
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return text.replace("$", r"\$")
