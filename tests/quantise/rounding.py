"""What is rounded here, and the oracle of rounding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mono.testing import (
    IMAGE,
)

SCHEMES = ("nf4", "int8")
WIDE = {"hidden_size": 64, "head_dim": 16, "ffn_size": 96}
"""Matrices of 4,096 numbers and more, which AdamW's moments in 8 bits begin at."""

# The 16 levels of NF4 (QLoRA, appendix E).
NF4 = torch.tensor(
    [
        *(-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0),
        *(0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0),
    ]
)


def rounded(weight: Tensor, scheme: str) -> Tensor:
    """The oracle: every weight at the nearest level of its block or row."""
    if scheme == "int8":
        step = weight.abs().amax(1, keepdim=True) / 127
        return (weight / step).round() * step
    blocks = F.pad(weight.flatten(), (0, -weight.numel() % 64)).view(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True)
    nearest = (blocks[..., None] / scale[..., None] - NF4).abs().argmin(-1)
    return (NF4[nearest] * scale).flatten()[: weight.numel()].view_as(weight)


def linear(rows: int, columns: int, *, bias: bool = False, seed: int = 0) -> nn.Linear:
    made = nn.Linear(columns, rows, bias=bias)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return made


def documents() -> list[list[list[list[int]]]]:
    """Two rows: text around two tiles, and text alone."""
    return [[[[5, *[IMAGE] * 4, 6, 7], [8, 9]], [[*[IMAGE] * 4, 10, 11]]], [[[12, 13, 14, 15]]]]
