"""Pixels to visual tokens, without a vision encoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mono.model.config import PatchifierConfig


class Patchifier(nn.Module):
    """Conv patches + position table, pixel shuffle, MLP (Mono-InternVL, section 3.1).

    No transformer layer and no image statistics: what vision there is lives in the experts.
    """

    def __init__(self, config: PatchifierConfig, hidden_size: int) -> None:
        super().__init__()
        self.config = config
        patches = config.image_size // config.patch_size
        merged = config.width * config.merge**2
        self.conv = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
        self.positions = nn.Parameter(torch.zeros(patches, patches, config.width))
        self.norm = nn.LayerNorm(merged)
        self.up = nn.Linear(merged, hidden_size)
        self.down = nn.Linear(hidden_size, hidden_size)
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(tiles, 3, size, size) -> (tiles, tokens per tile, hidden)."""
        if pixel_values.shape[1:] != (3, self.config.image_size, self.config.image_size):
            raise ValueError(
                f"pixel_values must be (tiles, 3, {self.config.image_size}, "
                f"{self.config.image_size}), got {tuple(pixel_values.shape)}"
            )
        patches = self.conv(pixel_values.to(self.conv.weight.dtype)).permute(0, 2, 3, 1)
        merged = pixel_shuffle(patches + self.positions, self.config.merge, self.config.order)
        return self.down(F.gelu(self.up(self.norm(merged))))


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
