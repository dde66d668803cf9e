"""Pixels to visual tokens: three ways without a vision encoder, and the modular way with one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mono.model.config import PatchifierConfig, PatchifierKind
from lightning_mono.model.linear import Linear
from lightning_mono.model.pixels import check_pixels, pixel_shuffle, resized
from lightning_mono.model.vit import VisionTransformer


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
        self.up = Linear(merged, hidden_size)
        self.down = Linear(hidden_size, hidden_size)
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
        self.projection = Linear(3 * (config.patch_size * config.merge) ** 2, hidden_size)

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


class VitPatchifier(nn.Module):
    """A vision transformer, pixel shuffle, MLP (InternVL 1.5, section 3.1).

    What Mono-InternVL is compared with: its modular twin, with vision in a tower of its own.
    """

    def __init__(self, config: PatchifierConfig, hidden_size: int) -> None:
        super().__init__()
        self.config = config
        self.vit = VisionTransformer(config)
        self.projector = Projector(config.width * config.merge**2, hidden_size)

    @property
    def last(self) -> nn.Linear:
        return self.projector.down

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Tiles of another size than the configuration's are taken too."""
        check_pixels(pixel_values, self.config)
        patches = self.vit(pixel_values)
        return self.projector(pixel_shuffle(patches, self.config.merge, self.config.order))


class Projector(nn.Module):
    """down(gelu(up(norm(x)))): (..., merged) -> (..., hidden)."""

    def __init__(self, merged: int, hidden_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(merged)
        self.up = Linear(merged, hidden_size)
        self.down = Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(self.norm(x))))


Patchifier = ConvPatchifier | LinearPatchifier | TwoConvPatchifier | VitPatchifier
"""(tiles, 3, size, size) -> (tiles, tokens per tile, hidden).

``config`` is what it was built from, ``last`` the layer that writes to the decoder.
"""

_KINDS: dict[PatchifierKind, type[Patchifier]] = {
    "conv": ConvPatchifier,
    "linear": LinearPatchifier,
    "two_conv": TwoConvPatchifier,
    "vit": VitPatchifier,
}


def build_patchifier(config: PatchifierConfig, hidden_size: int) -> Patchifier:
    """The patchifier of a kind, its weights drawn at random."""
    return _KINDS[config.kind](config, hidden_size)
