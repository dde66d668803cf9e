"""The model that is measured: shapes of a recipe, fewer layers, random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from lightning_mono.errors import UserError
from lightning_mono.model import ExpertsConfig, MonoConfig, MonoModel
from lightning_mono.model.meta import on_meta
from lightning_mono.plan.model import planned_model
from lightning_mono.recipe import Recipe, load_recipe


@dataclass(frozen=True)
class Subject:
    """What to build, and of what it is a part.

    Attributes:
        name: the recipe, as the user named it.
        overrides: of the recipe, as ``key=value``.
        config: with fewer layers, and a vocabulary that is smaller by as much, so that the head
            has the share in the time that it has in the whole model.
        whole: of the recipe's model.
        train: what learns in its first stage, in the recipe's words.
        device, dtype: where and in what it computes.
    """

    name: str
    overrides: tuple[str, ...]
    config: MonoConfig
    whole: MonoConfig
    train: tuple[str, ...]
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(
        cls,
        name: str,
        overrides: Sequence[str],
        layers: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Subject:
        """Reads a recipe; nothing is downloaded.

        Raises:
            UserError: no such recipe, its shapes are not known here, it reads no images, or it has
                fewer layers.
        """
        recipe = load_recipe(name, overrides)
        whole = _whole(recipe)
        if layers > whole.decoder.layers:
            raise UserError(f"--layers {layers}: {recipe.name} has {whole.decoder.layers}")
        train = next(iter(recipe.stages.values())).train
        return cls(name, tuple(overrides), cut(whole, layers), whole, tuple(train), device, dtype)

    @property
    def title(self) -> str:
        """What it is, in a line."""
        decoder, of = self.config.decoder, self.whole.decoder
        return (
            f"{self.name}: {decoder.layers} of {of.layers} layers of {decoder.hidden_size:,}, FFN "
            f"{decoder.ffn_size:,}, {decoder.heads} heads on {decoder.kv_heads}, "
            f"{decoder.vocab_size:,} of {of.vocab_size:,} words; random weights"
        )


def _whole(recipe: Recipe) -> MonoConfig:
    config, _ = planned_model(recipe)
    if config.patchifier is None:
        raise UserError(f"{recipe.name} has no model.patchifier: it reads no images")
    return config


def cut(whole: MonoConfig, layers: int) -> MonoConfig:
    """The same widths in fewer layers and a smaller vocabulary; its last id is an image token's."""
    decoder, of = whole.decoder, whole.decoder.layers
    vocabulary = max(round(decoder.vocab_size * layers / of), 2)

    def kept(placed: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(layer for layer in range(layers) if layer * of // layers in placed)

    experts = whole.experts
    return replace(
        whole,
        decoder=replace(decoder, layers=layers, vocab_size=vocabulary),
        experts=ExpertsConfig(kept(experts.ffn), kept(experts.attention), kept(experts.norms)),
        image_context_id=vocabulary - 1,
    )


@torch.no_grad()
def random_model(config: MonoConfig, device: torch.device, dtype: torch.dtype) -> MonoModel:
    """A model whose matrices are drawn so that activations keep their scale; the same each time."""
    with on_meta():
        model = MonoModel(config).to(dtype)
    model.to_empty(device=device)
    for buffer in model.buffers():
        buffer.zero_()
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
        else:
            parameter.fill_(float("norm" in name and name.endswith("weight")))
    return model.eval()
