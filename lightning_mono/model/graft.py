"""Grafting: a text LLM becomes a monolithic multimodal one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_mono.backbones import Backbone, add_image_tokens, load_backbone
from lightning_mono.model.assign import assign
from lightning_mono.model.config import ExpertsConfig, MonoConfig, PatchifierConfig, VitConfig
from lightning_mono.model.meta import on_meta
from lightning_mono.model.mono import MonoModel
from lightning_mono.model.patchifier import build_patchifier
from lightning_mono.placement import layers_of

PUBLISHED: Mapping[str, Any] = {"image_size": 448, "patch_size": 14, "width": 1024, "merge": 2}
"""Mono-InternVL-2B's patchifier: 256 tokens for a tile of 448 x 448 pixels."""


def graft(
    llm: Backbone | str | Path,
    patchifier: PatchifierConfig | Mapping[str, Any] | None = None,
    experts: ExpertsConfig | Mapping[str, Any] | None = None,
) -> MonoModel:
    """Builds the model around a text LLM's weights; experts are copies of the text weights.

    With a patchifier the tokenizer gets InternVL's visual tokens (``backbone.tokenizer`` itself,
    where a backbone is given), and their rows of embeddings and head get the mean of the old ones.
    The patchifier's last layer is scaled so that visual tokens enter the decoder as large as words.

    Args:
        llm: a loaded backbone, or what `load_backbone` takes: a folder in Hugging Face layout, a
            hub id, a GGUF file, a packaged name.
        patchifier: its settings, or those of them that differ from ``PUBLISHED``, e.g. ``{}``,
            ``{"image_size": 224}`` or ``{"kind": "vit", "vit": {"layers": 12}}``; None for a
            text-only model.
        experts: layers by kind, or words for them, e.g. ``{"ffn": "all", "attention": "last:4"}``;
            None for no visual experts.

    Raises:
        AssetError, CheckpointError: the LLM cannot be had.
        ValueError: a setting that does not fit it.
    """
    backbone = llm if isinstance(llm, Backbone) else load_backbone(str(llm))
    if isinstance(patchifier, Mapping):
        patchifier = _described(patchifier)
    if not isinstance(experts, ExpertsConfig):
        layers = backbone.config.layers
        experts = ExpertsConfig(**{k: layers_of(v, layers) for k, v in (experts or {}).items()})
    known, image_id = backbone.tokenizer.get_vocab_size(), None
    if patchifier is not None:
        image_id = add_image_tokens(backbone.tokenizer).context
    vocab = max(backbone.config.vocab_size, backbone.tokenizer.get_vocab_size())
    decoder = replace(backbone.config, vocab_size=vocab)
    model = _empty(MonoConfig(decoder, patchifier, experts, image_id), backbone)
    for name in [name for name, _ in model.named_parameters()]:
        if name.startswith("patchifier."):
            continue
        value = backbone.tensors.get(_source(name))
        if value is None:
            raise ValueError(f"backbone {backbone.name}: no weight for {name}")
        if name in ("embed.weight", "head.weight"):
            value = _with_means(value, known, backbone.tokenizer.get_vocab_size())
        # An expert must not share its sister's storage, nor the model the backbone's.
        assign(model, name, value.clone())
    if model.patchifier is not None:
        match_scale(model)
    return model


def with_experts(model: MonoModel, experts: ExpertsConfig) -> MonoModel:
    """The same model with visual experts in more layers: copies of their text weights.

    What it already has stays as it is; nothing is computed differently until the copies learn.
    """
    config = replace(model.config, experts=model.config.experts.joined(experts))
    if config == model.config:
        return model
    with on_meta():
        grown = MonoModel(config)
    state = model.state_dict()
    for name in grown.state_dict():
        assign(grown, name, state[name] if name in state else state[_source(name)].clone())
    grown.entries = model.entries
    return grown


def _described(settings: Mapping[str, Any]) -> PatchifierConfig:
    known = {**PUBLISHED, **settings}
    if isinstance(known.get("vit"), Mapping):
        known["vit"] = VitConfig(**known["vit"])
    return PatchifierConfig(**known)


def _empty(config: MonoConfig, backbone: Backbone) -> MonoModel:
    """The model without memory for the decoder; the patchifier is drawn at random."""
    dtype = backbone.tensors["embed.weight"].dtype
    with on_meta():
        model = MonoModel(config).to(dtype)
    if model.patchifier is not None:
        hidden = config.decoder.hidden_size
        model.patchifier = build_patchifier(model.patchifier.config, hidden).to(dtype)
    return model


def _source(name: str) -> str:
    """The text weight that a parameter starts from: itself, or its expert's sister."""
    return name.replace(".visual.", ".text.")


def _with_means(weight: Tensor, known: int, tokens: int) -> Tensor:
    """Sets the rows of ids ``known`` to ``tokens`` to the mean of those before; adds rows for it.

    A padded vocabulary (Qwen) has spare rows for new tokens, but nothing has ever trained them.

    Args:
        weight: (vocabulary, hidden).
        known: tokens of the tokenizer before any was added.
        tokens: of the tokenizer now.
    """
    known = min(known, weight.shape[0])
    mean = weight[:known].float().mean(0).to(weight.dtype)
    grown = torch.cat([weight, mean.expand(max(0, tokens - weight.shape[0]), -1)])
    grown[known:tokens] = mean
    return grown


@torch.no_grad()
def match_scale(model: MonoModel) -> None:
    """Scales the patchifier's output to the spread of the word embeddings."""
    assert model.patchifier is not None
    size = model.patchifier.config.image_size
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4, 3, size, size, generator=generator).to(model.embed.weight.dtype)
    spread = model.patchifier(noise).float().std()
    factor = model.embed.weight.float().std() / spread
    last = model.patchifier.last
    assert last.bias is not None
    last.weight.mul_(factor)
    last.bias.mul_(factor)
