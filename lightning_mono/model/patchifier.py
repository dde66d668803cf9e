"""Pixels to visual tokens, without a vision encoder: three ways that the field takes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mono.model.config import PatchifierConfig, PatchifierKind


class ConvPatchifier(nn.Module):
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

    @property
    def last(self) -> nn.Linear:
        return self.down

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Tiles of another size than the configuration's are taken too, as in the official code."""
        check_pixels(pixel_values, self.config)
        patches = self.conv(pixel_values.to(self.conv.weight.dtype)).permute(0, 2, 3, 1)
        patches = patches + resized(self.positions, patches.shape[1], patches.shape[2])
        merged = pixel_shuffle(patches, self.config.merge, self.config.order)
        return self.down(F.gelu(self.up(self.norm(merged))))


class LinearPatchifier(nn.Module):
    """One matrix from the pixels of a token's square to the decoder (Fuyu; SOLO, section 3).

    It has no position table: the decoder's own positions tell a token's place.
    """

    def __init__(self, config: PatchifierConfig, hidden_size: int) -> None:
        super().__init__()
        self.config = config
        self.projection = nn.Linear(3 * (config.patch_size * config.merge) ** 2, hidden_size)

    @property
    def last(self) -> nn.Linear:
        return self.projection

    def forward(self, pixel_values: Tensor) -> Tensor:
        """A token is a square's pixels, row by row, their three colours together."""
        check_pixels(pixel_values, self.config)
        pixels = pixel_values.to(self.projection.weight.dtype).permute(0, 2, 3, 1)
        return self.projection(pixel_shuffle(pixels, self.config.patch_size * self.config.merge))


class TwoConvPatchifier(nn.Module):
    """Two strided convolutions with GELU between them (EVEv2, section 3.2).

    EVEv2's class token and its tokens at the ends of rows are left out.
    """

    def __init__(self, config: PatchifierConfig, hidden_size: int) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
        self.second = nn.Conv2d(config.width, hidden_size, config.merge, stride=config.merge)

    @property
    def last(self) -> nn.Conv2d:
        return self.second

    def forward(self, pixel_values: Tensor) -> Tensor:
        check_pixels(pixel_values, self.config)
        patches = F.gelu(self.first(pixel_values.to(self.first.weight.dtype)))
        return self.second(patches).flatten(2).mT


Patchifier = ConvPatchifier | LinearPatchifier | TwoConvPatchifier
"""(tiles, 3, size, size) -> (tiles, tokens per tile, hidden).

``config`` is what it was built from, ``last`` the layer that writes to the decoder.
"""

_KINDS: dict[PatchifierKind, type[Patchifier]] = {
    "conv": ConvPatchifier,
    "linear": LinearPatchifier,
    "two_conv": TwoConvPatchifier,
}


def build_patchifier(config: PatchifierConfig, hidden_size: int) -> Patchifier:
    """The patchifier of a kind, its weights drawn at random."""
    return _KINDS[config.kind](config, hidden_size)


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
