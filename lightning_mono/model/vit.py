"""InternViT: the vision transformer of InternVL's modular models."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_mono.model.config import PatchifierConfig, VitConfig
from lightning_mono.model.experts import RMSNorm
from lightning_mono.model.linear import Linear
from lightning_mono.model.pixels import resized


class VisionTransformer(nn.Module):
    """Patches, a class token and their positions through pre-norm layers (InternVL, section 3.2).

    There is no norm behind the last layer, and the class token is dropped there.
    """

    def __init__(self, config: PatchifierConfig) -> None:
        super().__init__()
        assert config.vit is not None
        width, side, shape = config.width, config.table_grid, config.vit
        self.conv = nn.Conv2d(3, width, config.patch_size, stride=config.patch_size)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.class_position = nn.Parameter(torch.zeros(width))
        self.positions = nn.Parameter(torch.zeros(side, side, width))
        self.layers = nn.ModuleList(VitLayer(width, shape) for _ in range(shape.layers))
        for value in (self.class_embedding, self.class_position, self.positions):
            nn.init.normal_(value, std=0.02)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(tiles, 3, height, width) in pixels -> (tiles, rows, columns, width) of patches.

        The position table is resized bicubically to the grid at hand.
        """
        patches = self.conv(pixel_values.to(self.conv.weight.dtype)).permute(0, 2, 3, 1)
        tiles, rows, columns, width = patches.shape
        patches = patches + resized(self.positions, rows, columns)
        first = (self.class_embedding + self.class_position).to(patches.dtype)
        x = torch.cat([first.expand(tiles, 1, width), patches.flatten(1, 2)], dim=1)
        for layer in self.layers:
            x = layer(x)
        return x[:, 1:].unflatten(1, (rows, columns))


class VitLayer(nn.Module):
    """x + scale * attention(norm(x)), then x + scale * mlp(norm(x)), the scales by channel.

    Attributes:
        recomputed: keep nothing but the input for the way back, as the decoder's layers do.
    """

    def __init__(self, width: int, config: VitConfig) -> None:
        super().__init__()
        self.recomputed = False
        self.attention_norm = _norm(width, config)
        self.attention = VitAttention(width, config)
        self.attention_scale = nn.Parameter(torch.full((width,), config.layer_scale))
        self.mlp_norm = _norm(width, config)
        self.mlp = VitMLP(width, config.mlp_size(width))
        self.mlp_scale = nn.Parameter(torch.full((width,), config.layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """(tiles, tokens, width) -> the same shape."""
        if self.recomputed and torch.is_grad_enabled():
            return checkpoint(self._layer, x, use_reentrant=False, preserve_rng_state=False)
        return self._layer(x)

    def _layer(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x)) * self.attention_scale
        return x + self.mlp(self.mlp_norm(x)) * self.mlp_scale


class VitAttention(nn.Module):
    """Attention of every token of a tile to every other."""

    def __init__(self, width: int, config: VitConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = Linear(width, 3 * width, bias=config.qkv_bias)
        self.q_norm = RMSNorm(width, config.eps) if config.qk_norm else None
        self.k_norm = RMSNorm(width, config.eps) if config.qk_norm else None
        self.out = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(tiles, tokens, width) -> the same shape."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        # (tiles, heads, tokens, head_dim)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))


class VitMLP(nn.Module):
    """down(gelu(up(x)))."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up = Linear(width, inner)
        self.down = Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


def _norm(width: int, config: VitConfig) -> nn.Module:
    if config.norm == "rms_norm":
        return RMSNorm(width, config.eps)
    return nn.LayerNorm(width, config.eps)
