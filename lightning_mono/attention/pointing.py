"""The pointing game (Zhang et al. 2016): does the place that is looked at most hold the object?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_mono.attention.look import Look, Seen

Cells = NDArray[np.bool_]
"""Which cells of a picture hold some of the object, (rows, columns) as :attr:`Heat.whole`."""


def off_ground(seen: Seen, *, contrast: int = 32, least: float = 0.05) -> Cells:
    """Where a picture is not its ground: the cells of an object that stands on one plain colour.

    Args:
        contrast: from which difference to the median colour a pixel belongs to the object, in
            any of the three channels, 0 to 255.
        least: the share of a cell's pixels that have to.

    Returns:
        A cell a token of the picture's own tiles; see :data:`Cells`.
    """
    mosaic = seen.mosaic
    down, across = mosaic.rows * mosaic.grid, mosaic.columns * mosaic.grid
    pixels = np.asarray(seen.image, np.float32)
    ground = np.median(pixels.reshape(-1, 3), axis=0)
    differs = np.abs(pixels - ground).max(-1) >= contrast
    rows = (np.arange(len(differs)) + 0.5) * down // len(differs)
    columns = (np.arange(differs.shape[1]) + 0.5) * across // differs.shape[1]
    cell = (rows[:, None] * across + columns).astype(int).ravel()
    covered = np.bincount(cell, differs.ravel(), down * across)
    shares = covered / np.maximum(np.bincount(cell, minlength=down * across), 1)
    return shares.reshape(down, across) >= least


def pointing(looks: Sequence[Look], objects: Sequence[Cells], token: int = 0) -> NDArray:
    """How often the cell that a layer looks at most, averaged over heads, holds the object.

    Args:
        looks: at pictures, of which the first of each counts; at the same layers.
        objects: where it is in each of them. Their mean is what cells drawn at random would get.
        token: of the answer, from 0, as whose prediction it looks.

    Returns:
        The share of the looks, (layers,) fp64.

    Raises:
        ValueError: the cells are not those of a picture's tokens.
    """
    hits = np.zeros((len(looks), len(looks[0].layers)))
    for one, (look, cells) in enumerate(zip(looks, objects, strict=True)):
        for at, layer in enumerate(look.layers):
            heat = look.pictures[0].heat(look.row(layer, token)).whole
            if heat.shape != cells.shape:
                raise ValueError(f"the picture has {heat.shape} cells, not {cells.shape}")
            hits[one, at] = cells.flat[heat.argmax()]
    return hits.mean(0)
