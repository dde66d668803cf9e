"""The look of every chart: its colours and matplotlib's settings.

Colours are those of Okabe and Ito, told apart with any colour vision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl

INK = "#1f2328"
MUTED = "#667085"
GRID = "#dfe3e8"
BAND = "#f3f5f7"
MODEL = "#0072b2"
BLIND = "#d55e00"
USUAL = "#7a828e"
ROLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    BAND: "band",
    MODEL: "model",
    BLIND: "blind",
    USUAL: "usual",
}
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#b88600", "#1f2328", "#7a828e")
"""Colours of lines that stand side by side, in this order."""

MARKS = "osD^vPX*"
"""Marks that tell the same lines apart without colour."""

_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "svg.fonttype": "none",
    "svg.hashsalt": "lightning-mono",
}


@contextmanager
def house_style() -> Iterator[None]:
    """Set the look that every chart here needs, both while it is drawn and while it is saved."""
    with mpl.rc_context(_STYLE):
        yield
