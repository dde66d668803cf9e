"""Views of a look, one function a view; each returns a Figure.

A share of attention is always drawn in `paint.HEAT`, a difference from purple (less) over white to
orange (more). Kinds of tokens have the colours of Okabe and Ito, and are named beside them.
"""

from lightning_mono.attention.figures.compare import (
    compare_figure,
    layers_figure,
    pointing_figure,
)
from lightning_mono.attention.figures.maps import difference_figure, map_figure, measures_figure
from lightning_mono.attention.figures.overlays import (
    film_figure,
    heads_figure,
    overlay_figure,
    rollout_figure,
    row_figure,
)
from lightning_mono.attention.figures.pieces import KINDS, save_figure
from lightning_mono.attention.figures.training import training_figure

__all__ = [
    "KINDS",
    "compare_figure",
    "difference_figure",
    "film_figure",
    "heads_figure",
    "layers_figure",
    "map_figure",
    "measures_figure",
    "overlay_figure",
    "pointing_figure",
    "rollout_figure",
    "row_figure",
    "save_figure",
    "training_figure",
]
