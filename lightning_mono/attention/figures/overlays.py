"""Attention laid over the pictures that were shown: whole, by head, by token of the answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightning_mono.attention.figures.pieces import bare, headline, panel_title, quoted, short
from lightning_mono.attention.look import Look, Row, Seen
from lightning_mono.attention.paint import HEAT, blend, enlarged, gray_pixels
from lightning_mono.attention.places import Heat
from lightning_mono.style import INK, house_style

SIDE = 384
"""Longest side of a picture as it is drawn, in pixels."""

Cells = NDArray[np.float32]


def overlay_figure(look: Look, layer: int, token: int, head: int | None = None) -> Figure:
    """Lays the attention that predicted a token of the answer over each picture.

    For each picture: whole, the tiles apart where it has several, and the thumbnail.

    Args:
        layer: one of the look's.
        token: of the answer, from 0.
        head: from 0; by default the average over all.
    """
    row = look.row(layer, token, head)
    heads = "mean over heads" if head is None else f"head {head}"
    return row_figure(look, row, f"Layer {layer}, {heads}, as it says {quoted(look, token)}")


def rollout_figure(look: Look, token: int) -> Figure:
    """Lays what reaches a token of the answer through all layers over each picture.

    Attention rollout (Abnar and Zuidema 2020); see :class:`Rollout`.
    """
    row = look.rollout[look.prompt - 1 + token]
    return row_figure(look, row, f"Rollout through all layers to {quoted(look, token)}")


def row_figure(look: Look, row: Row, title: str) -> Figure:
    """Lays any row of attention, (columns,), over each picture; see :func:`overlay_figure`.

    Raises:
        ValueError: the prompt has no picture.
    """
    need_pictures(look)
    with house_style():
        single = all(seen.mosaic.tiles == 1 for seen in look.pictures)
        size = (4.9 if single else 8.6, 0.9 + 3.3 * len(look.pictures))
        figure = Figure(figsize=size, layout="constrained")
        parts = figure.subfigures(len(look.pictures), 1, squeeze=False)[:, 0]
        for part, seen in zip(parts, look.pictures, strict=True):
            heat = seen.heat(row)
            most = max(float(heat.whole.max()), 1e-12)
            panels = 1 if seen.mosaic.tiles == 1 else 2 if heat.thumbnail is None else 3
            whole, *rest = part.subplots(1, panels, squeeze=False)[0]
            draw_picture(whole, seen, heat.whole / most)
            panel_title(whole, f"whole picture: {heat.whole.sum():.1%} of attention")
            if rest:
                _tiles(rest[0], seen, heat, most)
            if heat.thumbnail is not None:
                draw_picture(rest[1], seen, heat.thumbnail / most, square=True)
                panel_title(rest[1], f"thumbnail: {heat.thumbnail.sum():.1%}")
            norm = Normalize(0, 100 * most)
            label = "share of attention a cell, %"
            part.colorbar(ScalarMappable(norm, HEAT), ax=[whole, *rest], label=label)
        headline(figure, title)
        return figure


def heads_figure(look: Look, layer: int, token: int) -> Figure:
    """Lays the attention of each head of a layer over the first picture, one panel a head.

    Each head is as bright as where it looks most; its share on pictures stands above it.
    """
    need_pictures(look)
    rows = look.heads[layer][:, token]
    titles = [f"head {h}: {look.image_share(row):.0%}" for h, row in enumerate(rows)]
    title = f"Layer {layer}, as it says {quoted(look, token)}: each head's share on pictures"
    return _panels(look, list(rows), titles, title)


def film_figure(look: Look, layer: int, head: int | None = None) -> Figure:
    """Lays the attention over the first picture, one panel a token of the answer."""
    need_pictures(look)
    rows = [look.row(layer, token, head) for token in range(len(look.said))]
    titles = [
        f"“{short(look.said[token].strip(), 14)}”\ntoken {token}: {look.image_share(row):.0%}"
        for token, row in enumerate(rows)
    ]
    heads = "mean over heads" if head is None else f"head {head}"
    title = f"Layer {layer}, {heads}: each token of the answer and its share on pictures"
    return _panels(look, rows, titles, title)


def _panels(look: Look, rows: Sequence[Row], titles: Sequence[str], title: str) -> Figure:
    """The first picture once a row of attention, side by side."""
    seen = look.pictures[0]
    across = min(len(rows), 6)
    down = -(-len(rows) // across)
    shape = min(max(seen.image.height / seen.image.width, 0.4), 1.6)
    with house_style():
        size = (max(1.5 * across, 6.4), 0.5 + (1.5 * shape + 0.45) * down)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(down, across, squeeze=False).flat
        for axes, row, name in zip(panels, rows, titles, strict=False):
            cells = seen.heat(row).whole
            draw_picture(axes, seen, cells / max(float(cells.max()), 1e-12))
            axes.set_title(name, size=8, color=INK, pad=3)
        for axes in figure.axes[len(rows) :]:
            axes.set_axis_off()
        headline(figure, title)
        return figure


def draw_picture(axes: Axes, seen: Seen, relative: Cells, *, square: bool = False) -> None:
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
    bare(axes)


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
    bare(axes)
    count = mosaic.columns * mosaic.rows
    panel_title(axes, f"{count} tile{'s' if count > 1 else ''}: {heat.tiles.sum():.1%}")


def need_pictures(look: Look) -> None:
    if not look.pictures:
        raise ValueError("the prompt has no picture to lay attention over")
