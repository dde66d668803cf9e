"""Which tensor of a model folder holds which of a model's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import Tensor

from lightning_mono.backbones.families import find_family
from lightning_mono.backbones.families.stored import stored
from lightning_mono.checkpoints.entry import Entry, Shapes, Tensors
from lightning_mono.checkpoints.vision import patchifier_entries
from lightning_mono.model.config import MonoConfig


def entries(config: MonoConfig, shapes: Shapes) -> list[Entry]:
    """Every stored tensor of a model.

    Args:
        shapes: of the model's state, by our names.
    """
    text = {name: shape for name, shape in shapes.items() if not name.startswith("patchifier.")}
    prefix = "language_model." if config.patchifier else ""
    found = list(_decoder(config, text, prefix))
    if config.patchifier:
        found += patchifier_entries(config.patchifier.kind, shapes)
    if config.patchifier and config.decoder.tied:
        # The official code does not tie the heads of composite models: it wants the copy.
        found.append(Entry(head(config), shapes["embed.weight"], _none, _embeddings_again))
    return found


def head(config: MonoConfig) -> str:
    """The stored name of the head; where the head is tied, it is a copy of the embeddings."""
    return _outer(config, "head")


def embeddings(config: MonoConfig) -> str:
    """The stored name of the word embeddings."""
    return _outer(config, "embed")


def _outer(config: MonoConfig, stem: str) -> str:
    prefix = "language_model." if config.patchifier else ""
    return f"{prefix}{find_family(config.decoder.family).names[stem]}.weight"


def _decoder(config: MonoConfig, shapes: Shapes, prefix: str) -> Iterator[Entry]:
    family = find_family(config.decoder.family)
    for tensor in stored(shapes, family.names):
        yield Entry(
            prefix + tensor.name,
            tensor.shape(shapes),
            partial(tensor.split, family=family, config=config.decoder),
            partial(tensor.join, family=family, config=config.decoder),
        )


def _embeddings_again(tensors: Tensors) -> Tensor:
    return tensors["embed.weight"].clone()


def _none(value: Tensor) -> dict[str, Tensor]:
    return {}
