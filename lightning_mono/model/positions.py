"""Rotary position embedding, in the rotate-half convention, with the scalings LLMs ship with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_mono.backbones.config import DecoderConfig, RopeScaling


def rotary_tables(config: DecoderConfig, positions: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines for positions (batch, tokens): each (batch, 1, tokens, head_dim), fp32.

    Args:
        length: tokens in view, cached ones included; dynamic NTK scaling depends on it.
    """
    frequencies = _frequencies(config, length).to(positions.device)
    angles = positions[:, None, :, None].float() * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Applies the tables to (batch, heads, tokens, head_dim)."""
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
    return x * cos.to(x.dtype) + turned * sin.to(x.dtype)


def _frequencies(config: DecoderConfig, length: int) -> Tensor:
    """Radians a position, one for each pair of channels: (head_dim / 2,) fp32."""
    dim, base, scaling = config.head_dim, config.rope_theta, config.rope_scaling
    if scaling is not None and scaling.kind == "dynamic" and length > config.max_positions:
        stretch = scaling.factor * length / config.max_positions - (scaling.factor - 1)
        base *= stretch ** (dim / (dim - 2))
    frequencies = 1.0 / base ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    if scaling is None or scaling.kind == "dynamic":
        return frequencies
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
