"""Which tensor of a model folder holds which of a model's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter

import torch
from torch import Tensor

from lightning_mono.backbones.families import find_family
from lightning_mono.backbones.families.stored import stored
from lightning_mono.model.config import MonoConfig

Tensors = Mapping[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]

# Those of the patchifier that are stored as they are.
_PATCHIFIER = {
    "patchifier.conv.weight": "vision_model.embeddings.patch_embedding.weight",
    "patchifier.conv.bias": "vision_model.embeddings.patch_embedding.bias",
    "patchifier.norm.weight": "mlp1.0.weight",
    "patchifier.norm.bias": "mlp1.0.bias",
    "patchifier.up.weight": "mlp1.1.weight",
    "patchifier.up.bias": "mlp1.1.bias",
    "patchifier.down.weight": "mlp1.3.weight",
    "patchifier.down.bias": "mlp1.3.bias",
}


@dataclass(frozen=True)
class Entry:
    """A stored tensor.

    Attributes:
        name: in the files.
        shape: in the files.
        split: the stored tensor to those of ours that it holds, by name.
        join: the inverse, given all of ours.
    """

    name: str
    shape: tuple[int, ...]
    split: Callable[[Tensor], dict[str, Tensor]]
    join: Callable[[Tensors], Tensor]


def entries(config: MonoConfig, shapes: Shapes) -> list[Entry]:
    """Every stored tensor of a model.

    Args:
        shapes: of the model's state, by our names.
    """
    text = {name: shape for name, shape in shapes.items() if not name.startswith("patchifier.")}
    prefix = "language_model." if config.patchifier else ""
    found = list(_decoder(config, text, prefix))
    if config.patchifier:
        published = config.patchifier.kind == "conv"
        found += _patchifier(shapes) if published else _other_patchifier(shapes)
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


def _named(name: str, value: Tensor) -> dict[str, Tensor]:
    return {name: value}


def _other_patchifier(shapes: Shapes) -> Iterator[Entry]:
    """Of kinds that the published checkpoints do not have: stored by our names."""
    for name, shape in shapes.items():
        if name.startswith("patchifier."):
            theirs = name.replace("patchifier.", "vision_model.", 1)
            yield Entry(theirs, shape, partial(_named, name), itemgetter(name))


def _patchifier(shapes: Shapes) -> Iterator[Entry]:
    for ours, theirs in _PATCHIFIER.items():
        yield Entry(
            theirs,
            shapes[ours],
            partial(_named, ours),
            itemgetter(ours),
        )
    side, _, width = shapes["patchifier.positions"]
    yield Entry(
        "vision_model.embeddings.class_embedding",
        (1, 1, width),
        lambda value: {"patchifier.class_embedding": value.flatten()},
        lambda tensors: tensors["patchifier.class_embedding"].view(1, 1, width),
    )

    def split_positions(value: Tensor) -> dict[str, Tensor]:
        return {
            "patchifier.class_position": value[0, 0].clone(),
            "patchifier.positions": value[0, 1:].reshape(side, side, width).clone(),
        }

    def join_positions(tensors: Tensors) -> Tensor:
        table = tensors["patchifier.positions"].reshape(-1, width)
        return torch.cat([tensors["patchifier.class_position"][None], table])[None]

    yield Entry(
        "vision_model.embeddings.position_embedding",
        (1, 1 + side * side, width),
        split_positions,
        join_positions,
    )
