"""Shapes of well-known language models, for checking and planning where the hub is out of reach.

Each is what config.json of that repository says. Tuned models have the shape of their base, so a
name stands for all that begin with it: ``Qwen/Qwen2.5-0.5B`` for ``Qwen/Qwen2.5-0.5B-Instruct``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from lightning_mono.backbones.config import DecoderConfig, RopeScaling


@dataclass(frozen=True)
class Known:
    """A language model's shape.

    Attributes:
        config: the decoder.
        tokens: of its tokenizer; a vocabulary may have spare rows beyond them.
    """

    config: DecoderConfig
    tokens: int


def _decoder(
    layers: int, hidden: int, heads: int, kv_heads: int, ffn: int, vocab: int, **other: object
) -> DecoderConfig:
    settings: dict[str, object] = {
        "family": "llama",
        "head_dim": hidden // heads,
        "rms_eps": 1e-5,
        "rope_theta": 10_000.0,
        "rope_scaling": None,
        "max_positions": 2048,
        **other,
    }
    return DecoderConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        ffn_size=ffn,
        **settings,  # type: ignore[arg-type]
    )


def _smollm2(layers: int, hidden: int, heads: int, kv_heads: int, ffn: int, theta: float) -> Known:
    config = _decoder(
        layers,
        hidden,
        heads,
        kv_heads,
        ffn,
        49_152,
        rope_theta=theta,
        max_positions=8192,
        tied=True,
    )
    return Known(config, 49_152)


def _internlm2(layers: int, hidden: int, heads: int, ffn: int) -> Known:
    config = _decoder(
        layers,
        hidden,
        heads,
        8,
        ffn,
        92_544,
        family="internlm2",
        rope_theta=1_000_000.0,
        rope_scaling=RopeScaling("dynamic", 2.0),
        max_positions=32_768,
    )
    return Known(config, 92_544)


def _qwen(family: str, layers: int, hidden: int, heads: int, kv: int, ffn: int) -> DecoderConfig:
    return _decoder(
        layers,
        hidden,
        heads,
        kv,
        ffn,
        151_936,
        family=family,
        rms_eps=1e-6,
        rope_theta=1_000_000.0,
        max_positions=32_768,
        tied=True,
    )


def _qwen25(layers: int, hidden: int, heads: int, kv: int, ffn: int, **other: object) -> Known:
    config = _qwen("qwen2", layers, hidden, heads, kv, ffn)
    return Known(replace(config, qkv_bias=True, **other), 151_665)  # type: ignore[arg-type]


def _qwen3(layers: int, hidden: int, heads: int, ffn: int, *, tied: bool = True) -> Known:
    config = _qwen("qwen3", layers, hidden, heads, 8, ffn)
    more = {"head_dim": 128, "qk_norm": True, "tied": tied, "max_positions": 40_960}
    return Known(replace(config, **more), 151_669)  # type: ignore[arg-type]


def _llama32(layers: int, hidden: int, heads: int) -> Known:
    scaling = RopeScaling("llama3", 32.0, 1.0, 4.0, 8192)
    config = _decoder(
        layers,
        hidden,
        heads,
        8,
        8192,
        128_256,
        rope_theta=500_000.0,
        rope_scaling=scaling,
        max_positions=131_072,
        tied=True,
    )
    return Known(config, 128_256)


KNOWN: Mapping[str, Known] = MappingProxyType(
    {
        "HuggingFaceTB/SmolLM2-135M": _smollm2(30, 576, 9, 3, 1536, 100_000.0),
        "HuggingFaceTB/SmolLM2-360M": _smollm2(32, 960, 15, 5, 2560, 100_000.0),
        "HuggingFaceTB/SmolLM2-1.7B": _smollm2(24, 2048, 32, 32, 8192, 130_000.0),
        "internlm/internlm2-1_8b": _internlm2(24, 2048, 16, 8192),
        "internlm/internlm2-chat-1_8b": _internlm2(24, 2048, 16, 8192),
        "internlm/internlm2_5-1_8b": _internlm2(24, 2048, 16, 8192),
        "internlm/internlm2-7b": _internlm2(32, 4096, 32, 14_336),
        "internlm/internlm2-chat-7b": _internlm2(32, 4096, 32, 14_336),
        "internlm/internlm2_5-7b": _internlm2(32, 4096, 32, 14_336),
        "Qwen/Qwen2.5-0.5B": _qwen25(24, 896, 14, 2, 4864),
        "Qwen/Qwen2.5-1.5B": _qwen25(28, 1536, 12, 2, 8960),
        "Qwen/Qwen2.5-3B": _qwen25(36, 2048, 16, 2, 11_008),
        "Qwen/Qwen2.5-7B": _qwen25(28, 3584, 28, 4, 18_944, vocab_size=152_064, tied=False),
        "Qwen/Qwen3-0.6B": _qwen3(28, 1024, 16, 3072),
        "Qwen/Qwen3-1.7B": _qwen3(28, 2048, 16, 6144),
        "Qwen/Qwen3-4B": _qwen3(36, 2560, 32, 9728),
        "Qwen/Qwen3-8B": _qwen3(36, 4096, 32, 12_288, tied=False),
        "meta-llama/Llama-3.2-1B": _llama32(16, 2048, 32),
        "meta-llama/Llama-3.2-3B": _llama32(28, 3072, 24),
        "TinyLlama/TinyLlama-1.1B": Known(
            _decoder(22, 2048, 32, 4, 5632, 32_000),
            32_000,
        ),
    }
)
"""The beginning of a hub id -> the model's shape."""


def known(spec: str) -> Known | None:
    """The shape of a hub id; None where the table does not have it."""
    base = max((name for name in KNOWN if is_of(spec, name)), key=len, default=None)
    return None if base is None else KNOWN[base]


def is_of(spec: str, base: str) -> bool:
    """Whether a hub id is the base itself, or a tuned model named after it."""
    return spec.lower() == base.lower() or spec.lower().startswith(f"{base.lower()}-")
