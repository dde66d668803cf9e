"""Attention laid over a picture, as pixels."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEAT = "inferno"
"""Dark to bright in equal steps of lightness: it reads in gray, and with any colour vision."""


def enlarged(cells: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Cells as pixels, (height, width): each pixel takes the cell that its centre lies in."""
    rows = (np.arange(height) + 0.5) * cells.shape[0] / height
    columns = (np.arange(width) + 0.5) * cells.shape[1] / width
    pixels: NDArray[np.float32] = cells[rows.astype(int)][:, columns.astype(int)]
    return pixels


def gray_pixels(image: Image.Image) -> NDArray[np.float32]:
    """A picture's lightness, (height, width), 0 to 1."""
    pixels: NDArray[np.float32] = np.asarray(image.convert("L"), np.float32) / np.float32(255)
    return pixels


def blend(gray: NDArray[np.float32], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Lays attention over a picture: dark where there is little, bright where there is much.

    Args:
        gray: the picture, (height, width), 0 to 1.
        heat: (height, width), 0 to 1.

    Returns:
        (height, width, 3) uint8.
    """
    colours = mpl.colormaps[HEAT](np.asarray(heat))[..., :3]
    mixed: NDArray[np.uint8] = (255 * (0.34 * gray[..., None] + 0.66 * colours)).astype(np.uint8)
    return mixed
