"""Shapes of published models, for planning, benchmarks and tests without their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from lightning_mono.backbones.config import DecoderConfig, RopeScaling
from lightning_mono.model.config import ExpertsConfig, MonoConfig, PatchifierConfig

MONO_INTERNVL_2B = MonoConfig(
    decoder=DecoderConfig(
        family="internlm2",
        vocab_size=92_553,
        hidden_size=2048,
        layers=24,
        heads=16,
        kv_heads=8,
        head_dim=128,
        ffn_size=8192,
        rms_eps=1e-5,
        rope_theta=1_000_000.0,
        rope_scaling=RopeScaling("dynamic", 2.0),
        max_positions=32_768,
    ),
    patchifier=PatchifierConfig(image_size=448, patch_size=14, width=1024, merge=2),
    experts=ExpertsConfig(ffn=tuple(range(24))),
    image_context_id=92_546,
)
"""Mono-InternVL-2B: InternLM2-chat-1.8B with an FFN expert in every layer (section 4.1)."""

INTERNVL_2B = replace(
    MONO_INTERNVL_2B,
    patchifier=PatchifierConfig(image_size=448, patch_size=14, width=1024, merge=2, kind="vit"),
    experts=ExpertsConfig(),
)
"""InternVL2-2B, and Mini-InternVL-2B of InternVL 1.5: the modular twin, with InternViT-300M."""

PUBLISHED: Mapping[str, MonoConfig] = MappingProxyType(
    {
        **{
            f"OpenGVLab/Mono-InternVL-2B{stage}": MONO_INTERNVL_2B
            for stage in ("", "-S1-1", "-S1-2", "-S1-3")
        },
        "OpenGVLab/InternVL2-2B": INTERNVL_2B,
        "OpenGVLab/Mini-InternVL-Chat-2B-V1-5": INTERNVL_2B,
    }
)
"""Hub id -> its shape, that of Mono-InternVL's stages being the same."""
