"""The pointing game (Zhang et al. 2016): does the place that is looked at most hold the object?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_mono.attention.look import Look

Cells = NDArray[np.bool_]
"""Which cells of a picture hold some of the object, (rows, columns) as :attr:`Heat.whole`."""


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
