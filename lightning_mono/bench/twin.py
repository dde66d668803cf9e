"""The modular twin: InternViT before a text LLM of the same sizes, here and in transformers."""

from __future__ import annotations

import inspect
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mono.backbones.config import DecoderConfig
from lightning_mono.bench.subject import Subject
from lightning_mono.model import ExpertsConfig, MonoConfig, MonoModel, PatchifierConfig
from lightning_mono.model.config import VitConfig

HEAD = 64
"""Channels of a head in InternViT-300M."""


def twin_config(subject: Subject) -> MonoConfig:
    """InternViT-300M's layers, of their width and depth, cut to the share of layers that is here.

    It has no experts; patches, tiles and tokens are the same.
    """
    config, of = subject.config, subject.whole.decoder.layers
    section = config.patchifier
    assert section is not None
    heads = section.width // HEAD if section.width % HEAD == 0 else 1
    layers = max(round(VitConfig.layers * config.decoder.layers / of), 1)
    patchifier = PatchifierConfig(
        image_size=section.image_size,
        patch_size=section.patch_size,
        width=section.width,
        merge=section.merge,
        kind="vit",
        vit=VitConfig(layers=layers, heads=heads),
    )
    return replace(config, patchifier=patchifier, experts=ExpertsConfig())


def without_transformers(config: DecoderConfig) -> str | None:
    """Why transformers cannot run the twin; None if it can."""
    if find_spec("transformers") is None:
        return "transformers is not installed"
    if find_spec("transformers.models.internvl") is None:
        return "this version of transformers has no InternVL"
    kind = config.rope_scaling.kind if config.rope_scaling else None
    if kind in ("linear", "llama3"):
        return f"positions scaled by the rule {kind} are not set up for it"
    if config.out_bias:
        return "a bias behind attention is not set up for it"
    return None


class InTransformers:
    """The twin as ``InternVLForConditionalGeneration``, on the very weights of ours.

    Attention is PyTorch's fused one, and logits are made for the last position, as its ``generate``
    has it.
    """

    def __init__(self, ours: MonoModel) -> None:
        from transformers import InternVLForConditionalGeneration
        from transformers.initialization import no_init_weights

        with no_init_weights():
            model: Any = InternVLForConditionalGeneration(_configuration(ours.config))
        model = model.to(ours.embed.weight.dtype)
        model.load_state_dict(dict(_renamed(ours)), assign=True)
        self.model: Any = model.to(ours.device).eval()
        self.text = self.model.config.get_text_config()
        parameters = inspect.signature(self.model.forward).parameters
        self._cache = "cache" if "cache" in parameters else "past_key_values"

    def cache(self) -> Any:
        """An empty one, as its ``generate`` makes it."""
        from transformers import DynamicCache

        return DynamicCache(config=self.text)

    @torch.inference_mode()
    def read(self, ids: Tensor, cache: Any, pixels: Tensor | None = None) -> Tensor:
        """Reads (batch, tokens) behind what the cache holds: (batch, vocabulary) in fp32."""
        out = self.model(
            input_ids=ids,
            pixel_values=pixels,
            use_cache=True,
            logits_to_keep=1,
            **{self._cache: cache},
        )
        logits: Tensor = out.logits[:, -1].float()
        return logits


def _configuration(config: MonoConfig) -> Any:
    from transformers import InternVLConfig, InternVLVisionConfig

    section = config.patchifier
    assert section is not None
    assert section.vit is not None
    assert config.image_context_id is not None
    vision = InternVLVisionConfig(
        hidden_size=section.width,
        num_hidden_layers=section.vit.layers,
        num_attention_heads=section.vit.heads,
        intermediate_size=section.vit.mlp_size(section.width),
        image_size=section.image_size,
        patch_size=section.patch_size,
        attention_bias=section.vit.qkv_bias,
        layer_norm_eps=section.vit.eps,
    )
    return InternVLConfig(
        vision_config=vision,
        text_config=_text(config.decoder),
        image_token_id=config.image_context_id,
        image_seq_length=section.tokens_per_tile,
        downsample_ratio=1 / section.merge,
        tie_word_embeddings=config.decoder.tied,
    )


def _text(decoder: DecoderConfig) -> Any:
    from transformers import LlamaConfig, Qwen2Config, Qwen3Config

    kind: Any = LlamaConfig
    if decoder.qk_norm or decoder.qkv_bias:
        kind = Qwen3Config if decoder.qk_norm else Qwen2Config
    return kind(
        vocab_size=decoder.vocab_size,
        hidden_size=decoder.hidden_size,
        intermediate_size=decoder.ffn_size,
        num_hidden_layers=decoder.layers,
        num_attention_heads=decoder.heads,
        num_key_value_heads=decoder.kv_heads,
        head_dim=decoder.head_dim,
        rms_norm_eps=decoder.rms_eps,
        rope_theta=decoder.rope_theta,
        max_position_embeddings=decoder.max_positions,
        tie_word_embeddings=decoder.tied,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )


_LEAVES = {
    "attention_norm.text": "input_layernorm",
    "attention.qkv.text.q": "self_attn.q_proj",
    "attention.qkv.text.k": "self_attn.k_proj",
    "attention.qkv.text.v": "self_attn.v_proj",
    "attention.qkv.text.q_norm": "self_attn.q_norm",
    "attention.qkv.text.k_norm": "self_attn.k_norm",
    "attention.out.text": "self_attn.o_proj",
    "ffn_norm.text": "post_attention_layernorm",
    "ffn.text.gate": "mlp.gate_proj",
    "ffn.text.up": "mlp.up_proj",
    "ffn.text.down": "mlp.down_proj",
}
_VIT = {
    "attention_norm": "layernorm_before",
    "attention.out": "attention.projection_layer",
    "mlp_norm": "layernorm_after",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
}
_PROJECTOR = {"norm": "layer_norm", "up": "linear_1", "down": "linear_2"}


def _renamed(model: MonoModel) -> dict[str, nn.Parameter]:
    """The weights by the names, and in the shapes, of transformers; memory is shared."""
    ours = {name: value.detach() for name, value in model.named_parameters()}
    table = ours["patchifier.vit.positions"].flatten(0, 1)
    embeddings = "model.vision_tower.embeddings"
    found = {
        f"{embeddings}.cls_token": ours["patchifier.vit.class_embedding"][None, None],
        f"{embeddings}.position_embeddings": torch.cat(
            [ours["patchifier.vit.class_position"][None], table]
        )[None],
        "model.language_model.embed_tokens.weight": ours["embed.weight"],
        "model.language_model.norm.weight": ours["norm.weight"],
        "lm_head.weight": ours["embed.weight" if model.head is None else "head.weight"],
    }
    for name, value in ours.items():
        block, _, leaf = name.rpartition(".")
        match block.split("."):
            case ["layers", number, *inner]:
                theirs = f"layers.{number}.{_LEAVES['.'.join(inner)]}"
                found[f"model.language_model.{theirs}.{leaf}"] = value
            case ["patchifier", "projector", part]:
                found[f"model.multi_modal_projector.{_PROJECTOR[part]}.{leaf}"] = value
            case ["patchifier", "vit", "conv"]:
                found[f"{embeddings}.patch_embeddings.projection.{leaf}"] = value
            case ["patchifier", "vit", "layers", number, *inner]:
                layer = f"model.vision_tower.encoder.layer.{number}"
                found |= _vit_layer(layer, ".".join(inner), leaf, value)
            case _:
                pass
    return {name: nn.Parameter(value, requires_grad=False) for name, value in found.items()}


def _vit_layer(layer: str, block: str, leaf: str, value: Tensor) -> dict[str, Tensor]:
    if block == "attention.qkv":
        parts = zip("qkv", value.chunk(3), strict=True)
        return {f"{layer}.attention.{kind}_proj.{leaf}": part for kind, part in parts}
    if block:
        return {f"{layer}.{_VIT[block]}.{leaf}": value}
    return {f"{layer}.{'lambda_1' if leaf == 'attention_scale' else 'lambda_2'}": value}
