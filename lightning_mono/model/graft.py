"""Grafting: a text LLM becomes a monolithic multimodal one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lightning_mono.backbones import Backbone
from lightning_mono.model.config import ExpertsConfig, MonoConfig, PatchifierConfig
from lightning_mono.model.mono import MonoModel


def graft(
    backbone: Backbone,
    patchifier: PatchifierConfig | None,
    experts: ExpertsConfig,
    image_context_id: int | None,
) -> MonoModel:
    """Builds the model around the backbone's weights; experts are copies of the text weights.

    The vocabulary grows to the tokenizer's size where image tokens were added to it; the new rows
    of embeddings and head get the mean of the old ones. The patchifier's last layer is scaled so
    that visual tokens enter the decoder as large as words do.
    """
    vocab = max(backbone.config.vocab_size, backbone.tokenizer.get_vocab_size())
    decoder = replace(backbone.config, vocab_size=vocab)
    tensors = dict(backbone.tensors)
    for name in ("embed.weight", "head.weight"):
        if name in tensors:
            tensors[name] = _grown(tensors[name], vocab)
    config = MonoConfig(decoder, patchifier, experts, image_context_id)
    dtype = tensors["embed.weight"].dtype
    with torch.device("meta"):
        model = MonoModel(config).to(dtype)
    if model.patchifier is not None:
        model.patchifier = type(model.patchifier)(model.patchifier.config, decoder.hidden_size)
        model.patchifier.to(dtype)
    weights = {name: tensors.get(_source(name)) for name in _names(model)}
    missing = [name for name, value in weights.items() if value is None]
    if missing:
        raise ValueError(f"backbone {backbone.name}: no weight for {missing[0]}")
    _assign(model, {name: value for name, value in weights.items() if value is not None})
    if model.patchifier is not None:
        _match_scale(model)
    return model


def _names(model: MonoModel) -> list[str]:
    return [name for name, _ in model.named_parameters() if not name.startswith("patchifier.")]


def _source(name: str) -> str:
    """The text weight that a parameter starts from: itself, or its expert's sister."""
    return name.replace(".visual.", ".text.")


def _grown(weight: Tensor, rows: int) -> Tensor:
    new = rows - weight.shape[0]
    if new <= 0:
        return weight
    mean = weight.float().mean(0, keepdim=True).to(weight.dtype)
    return torch.cat([weight, mean.expand(new, -1)])


def _assign(model: MonoModel, weights: dict[str, Tensor]) -> None:
    """Gives every parameter storage of its own (an expert must not share its sister's)."""
    for name, parameter in list(model.named_parameters()):
        if name not in weights:
            continue
        value = weights[name]
        if value.shape != parameter.shape:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, the config says {tuple(parameter.shape)}"
            )
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, torch.nn.Parameter(value.clone()))


@torch.no_grad()
def _match_scale(model: MonoModel) -> None:
    """Scales the patchifier's output to the spread of the word embeddings."""
    assert model.patchifier is not None
    size = model.patchifier.config.image_size
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4, 3, size, size, generator=generator).to(model.embed.weight.dtype)
    spread = model.patchifier(noise).float().std()
    factor = model.embed.weight.float().std() / spread
    model.patchifier.down.weight.mul_(factor)
    model.patchifier.down.bias.mul_(factor)
