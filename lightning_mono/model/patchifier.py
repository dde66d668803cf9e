"""Pixels to visual tokens, without a vision encoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mono.model.config import PatchifierConfig


class Patchifier(nn.Module):
    """Conv patches + position table, pixel shuffle, MLP (Mono-InternVL, section 3.1).

    No transformer layer and no image statistics: what vision there is lives in the experts.

    The buffers ``class_embedding`` and ``class_position``, (width,) each, are what the published
    checkpoints hold of a class token that nothing reads; they are kept so that a checkpoint is
    written back whole.
    """

    class_embedding: Tensor
    class_position: Tensor

    def __init__(self, config: PatchifierConfig, hidden_size: int) -> None:
        super().__init__()
        self.config = config
        table = config.table_grid
        merged = config.width * config.merge**2
        self.conv = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
        self.positions = nn.Parameter(torch.zeros(table, table, config.width))
        self.norm = nn.LayerNorm(merged)
        self.up = nn.Linear(merged, hidden_size)
        self.down = nn.Linear(hidden_size, hidden_size)
        for name in ("class_embedding", "class_position"):
            self.register_buffer(name, torch.zeros(config.width))
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(tiles, 3, size, size) -> (tiles, tokens per tile, hidden).

        Tiles of another size than the configuration's are taken too, as in the official code.
        """
        step = self.config.patch_size * self.config.merge
        shape = tuple(pixel_values.shape)
        if len(shape) != 4 or shape[1] != 3 or shape[2] % step or shape[3] % step:
            raise ValueError(
                f"pixel_values must be (tiles, 3, {self.config.image_size}, "
                f"{self.config.image_size}), or of another size that {step} divides; got {shape}"
            )
        patches = self.conv(pixel_values.to(self.conv.weight.dtype)).permute(0, 2, 3, 1)
        patches = patches + resized(self.positions, patches.shape[1], patches.shape[2])
        merged = pixel_shuffle(patches, self.config.merge, self.config.order)
        return self.down(F.gelu(self.up(self.norm(merged))))


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
