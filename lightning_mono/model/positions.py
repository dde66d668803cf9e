"""Rotary position embedding, in the rotate-half convention, with the scalings LLMs ship with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_mono.backbones.config import DecoderConfig, RopeScaling


def rotary_tables(
    config: DecoderConfig, positions: Tensor, view: int | Tensor
) -> tuple[Tensor, Tensor]:
    """Cosines and sines for positions (batch, tokens): each (batch, 1, tokens, head_dim), fp32.

    Args:
        view: tokens in view, on which dynamic NTK scaling depends: the row's length, cached tokens
            and padding included, as in the published code; or, for packed rows, the length of each
            token's document, (batch, tokens).
    """
    frequencies = _frequencies(config, view).to(positions.device)
    if frequencies.dim() > 1:
        frequencies = frequencies[:, None]  # (batch, 1, tokens, head_dim / 2)
    angles = positions[:, None, :, None].float() * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Applies the tables to (batch, heads, tokens, head_dim)."""
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
    return x * cos.to(x.dtype) + turned * sin.to(x.dtype)


def document_lengths(positions: Tensor, documents: Tensor) -> Tensor:
    """Tokens of each token's own document, its longest branch counted: (batch, tokens) int64."""
    rows = torch.arange(len(documents), device=documents.device)[:, None]
    most = documents.shape[1] + 1
    owner = (rows * most + documents).flatten()
    last = positions.new_zeros(len(documents) * most)
    last = last.scatter_reduce(0, owner, positions.flatten(), "amax")
    return last[owner].view_as(positions) + 1


def _frequencies(config: DecoderConfig, view: int | Tensor) -> Tensor:
    """Radians a position, for each pair of channels: (head_dim / 2,) or (..., head_dim / 2) fp32.

    Dynamic NTK (the reading of transformers and InternLM2): in view of n tokens, more than the m
    of pre-training, the base is theta * (s n / m - (s - 1)) ** (d / (d - 2)), s being the factor.
    """
    dim, base, scaling = config.head_dim, config.rope_theta, config.rope_scaling
    powers = torch.arange(0, dim, 2, dtype=torch.float32) / dim
    if scaling is None:
        return 1.0 / base**powers
    if scaling.kind == "dynamic":
        ratio = view / config.max_positions
        stretch = scaling.factor * ratio - (scaling.factor - 1)
        if isinstance(stretch, Tensor):
            grown = base * stretch.clamp(min=1.0) ** (dim / (dim - 2))
            return 1.0 / grown[..., None] ** powers.to(grown.device)
        return 1.0 / (base * max(stretch, 1.0) ** (dim / (dim - 2))) ** powers
    frequencies = 1.0 / base**powers
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    return _llama3(frequencies, scaling)


def _llama3(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Llama 3's piecewise rule: long waves are slowed, short ones kept, those between blended."""
    low, high, original = (
        scaling.low_freq_factor,
        scaling.high_freq_factor,
        scaling.original_positions,
    )
    if low is None or high is None or original is None:
        raise ValueError("llama3 rope scaling needs its low, high and original settings")
    wavelength = 2 * math.pi / frequencies
    blend = ((original / wavelength - low) / (high - low)).clamp(0, 1)
    return frequencies / scaling.factor * (1 - blend) + frequencies * blend
