"""Tiles of pixels and the grids of patches cut from them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lightning_mono.model.config import PatchifierConfig


def check_pixels(pixel_values: Tensor, config: PatchifierConfig) -> None:
    """Refuses what cannot be cut into tokens.

    Raises:
        ValueError: no tiles of three colours, or sides that no whole number of tokens makes.
    """
    step = config.patch_size * config.merge
    shape = tuple(pixel_values.shape)
    if len(shape) != 4 or shape[1] != 3 or shape[2] % step or shape[3] % step:
        raise ValueError(
            f"pixel_values must be (tiles, 3, {config.image_size}, {config.image_size}), or of "
            f"another size that {step} divides; got {shape}"
        )


def resized(table: Tensor, rows: int, columns: int) -> Tensor:
    """A position table (side, side, width) for a grid of another size, bicubically, in fp32."""
    if table.shape[:2] == (rows, columns):
        return table
    stack = table.float().permute(2, 0, 1)[None]  # (1, width, side, side)
    grown = F.interpolate(stack, size=(rows, columns), mode="bicubic", align_corners=False)
    return grown[0].permute(1, 2, 0).to(table.dtype)


def pixel_shuffle(patches: Tensor, merge: int, order: str = "v2") -> Tensor:
    """Puts each merge x merge square of patches side by side into one token.

    Args:
        patches: (tiles, rows, columns, width).
        order: ``v2`` reads the squares row by row; ``v1`` column by column.

    Returns:
        (tiles, rows * columns / merge**2, width * merge**2).
    """
    tiles, rows, columns, width = patches.shape
    squares = patches.reshape(tiles, rows // merge, merge, columns // merge, merge, width)
    squares = squares.permute(0, 1, 3, 2, 4, 5)
    if order == "v1":
        squares = squares.transpose(1, 2)
    return squares.reshape(tiles, rows // merge * (columns // merge), width * merge**2)
