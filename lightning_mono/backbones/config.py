"""The shape of a decoder LLM, and the names and shapes of its tensors, whatever its files.

Rotary positions are in the rotate-half convention; the FFN is SwiGLU, down(silu(gate(x)) * up(x)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for contexts longer than those of pre-training.

    Attributes:
        kind: ``linear`` divides every frequency by ``factor``; ``dynamic`` grows the base with
            the length in view (NTK); ``llama3`` slows long waves only (Llama 3.1).
        factor: the stretch.
        low_freq_factor: llama3 only: waves longer than original / low are slowed in full.
        high_freq_factor: llama3 only: waves shorter than original / high are kept.
        original_positions: llama3 only: context of pre-training, in tokens.
    """

    kind: Literal["linear", "dynamic", "llama3"]
    factor: float
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    original_positions: int | None = None


@dataclass(frozen=True)
class DecoderConfig:
    """A pre-norm decoder with grouped-query attention, rotary positions and SwiGLU.

    Attributes:
        family: whose names and settings it is stored under, e.g. ``llama``.
        vocab_size: rows of the embedding.
        hidden_size: channels of the residual stream.
        layers: blocks.
        heads: query heads.
        kv_heads: key and value heads; a divisor of ``heads``.
        head_dim: channels of a head.
        ffn_size: inner channels of the FFN.
        rms_eps: added to the mean square in every norm.
        rope_theta: rotary base.
        rope_scaling: None for plain rotary positions.
        max_positions: longest context of pre-training, in tokens.
        qkv_bias: whether the q, k and v projections have biases.
        out_bias: whether attention's output projection has a bias.
        qk_norm: whether every query and key head passes an RMSNorm before it is rotated (Qwen3).
        tied: whether the head is the embedding; there is no ``head.weight`` then.
    """

    family: str
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_size: int
    rms_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    max_positions: int
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False
    tied: bool = False

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} is no divisor of heads {self.heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd: rotary positions need pairs")


def tensor_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of the text path, by our name; linear weights are (out, in)."""
    hidden = config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (config.vocab_size, hidden)}
    for layer in range(config.layers):
        for name, shape in _layer_shapes(config).items():
            shapes[f"layers.{layer}.{name}"] = shape
    shapes["norm.weight"] = (hidden,)
    if not config.tied:
        shapes["head.weight"] = (config.vocab_size, hidden)
    return shapes


def _layer_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    hidden, ffn = config.hidden_size, config.ffn_size
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {"attention_norm.text.weight": (hidden,)}
    for name, size in (("q", q), ("k", kv), ("v", kv)):
        shapes[f"attention.qkv.text.{name}.weight"] = (size, hidden)
        if config.qkv_bias:
            shapes[f"attention.qkv.text.{name}.bias"] = (size,)
    if config.qk_norm:
        for name in ("q_norm", "k_norm"):
            shapes[f"attention.qkv.text.{name}.weight"] = (config.head_dim,)
    shapes["attention.out.text.weight"] = (hidden, q)
    if config.out_bias:
        shapes["attention.out.text.bias"] = (hidden,)
    shapes["ffn_norm.text.weight"] = (hidden,)
    shapes["ffn.text.gate.weight"] = (ffn, hidden)
    shapes["ffn.text.up.weight"] = (ffn, hidden)
    shapes["ffn.text.down.weight"] = (hidden, ffn)
    return shapes
