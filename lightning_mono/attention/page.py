"""A look as one HTML file with sliders: it needs nothing else, and no network."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from lightning_mono.attention.figures import KINDS
from lightning_mono.attention.look import Look, Seen
from lightning_mono.attention.paint import HEAT
from lightning_mono.checkpoints.atomic import replacing
from lightning_mono.evaluation.report.pages import environment
from lightning_mono.evaluation.report.svg import png_uri

LONGEST = 768
"""Pixels of a picture's longer side in the page, at most."""


def write_page(look: Look, path: Path, *, prompt: str, model: str) -> None:
    """Writes the page: layer, head and token of the answer on sliders; pictures and words under
    their attention.

    Every layer and head of the look is inside, a byte a weight (relative to the greatest of its
    row), and the shares that the page states as they are.

    Args:
        path: of the file; it appears whole or not at all.
        prompt: what was asked, as the reader is to see it.
        model: its name.
    """
    page = (
        environment(Path(__file__).parent)
        .get_template("maps.html.j2")
        .render(prompt=prompt, model=model, answer=look.answer, data=_data(look), kinds=KINDS)
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _data(look: Look) -> dict[str, Any]:
    rows = np.stack([_with_mean(look.heads[layer]) for layer in look.layers])
    kinds = [s.kind for s in look.segments for _ in range(s.start, s.stop)]
    return {
        "layers": look.layers,
        "heads": rows.shape[1] - 1,
        "said": look.said,
        "tokens": look.tokens,
        "kinds": kinds,
        "colours": [to_hex(colour) for colour in mpl.colormaps[HEAT](range(256))],
        "words": _packed(rows),
        "pictures": [_picture(seen, rows) for seen in look.pictures],
    }


def _picture(seen: Seen, rows: NDArray[np.float32]) -> dict[str, Any]:
    heats = [seen.heat(row).whole for row in rows.reshape(-1, rows.shape[-1])]
    cells = np.stack(heats).reshape(*rows.shape[:3], -1)
    image = seen.image.copy()
    image.thumbnail((LONGEST, LONGEST))
    return {
        "uri": png_uri(image.convert("L")),
        "width": image.width,
        "height": image.height,
        "rows": heats[0].shape[0],
        "columns": heats[0].shape[1],
        "cells": _packed(cells),
        "share": cells.sum(-1).ravel().round(6).tolist(),
    }


def _with_mean(heads: NDArray[np.float32]) -> NDArray[np.float32]:
    """(heads, tokens said, columns) with the mean over heads before the first."""
    return np.concatenate([heads.mean(0, keepdims=True), heads])


def _packed(rows: NDArray[np.float32]) -> str:
    """Rows as bytes, each relative to its greatest, in base64."""
    most = np.maximum(rows.max(-1, keepdims=True), 1e-12)
    return base64.b64encode((255 * rows / most).round().astype(np.uint8).tobytes()).decode("ascii")
