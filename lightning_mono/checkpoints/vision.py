"""Which tensor of a model folder holds which of a patchifier's.

Mono-InternVL's patchifier is stored as InternVL's embeddings and MLP, without the layers between:
the two differ in that, and in how we call what they share.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_mono.checkpoints.entry import Entry, Shapes, Tensors, as_it_is
from lightning_mono.model.config import PatchifierKind

TOWER = "vision_model."
"""What the stored names of a vision tower begin with."""

_MLP = {"norm": "mlp1.0", "up": "mlp1.1", "down": "mlp1.3"}
_LAYER = {
    "attention_norm": "norm1",
    "attention.qkv": "attn.qkv",
    "attention.q_norm": "attn.q_norm",
    "attention.k_norm": "attn.k_norm",
    "attention.out": "attn.proj",
    "attention_scale": "ls1",
    "mlp_norm": "norm2",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
    "mlp_scale": "ls2",
}


def patchifier_entries(kind: PatchifierKind, shapes: Shapes) -> Iterator[Entry]:
    """Every stored tensor of a patchifier.

    Args:
        shapes: of the model's state, by our names.
    """
    ours = {name: shape for name, shape in shapes.items() if name.startswith("patchifier.")}
    if kind == "vit":
        yield from _embeddings("patchifier.vit", ours)
        yield from _layers(ours)
        yield from _mlp("patchifier.projector", ours)
    elif kind == "conv":
        yield from _embeddings("patchifier", ours)
        yield from _mlp("patchifier", ours)
    else:  # what the official code does not have is stored by our names
        for name in ours:
            yield as_it_is(name, name.replace("patchifier.", TOWER, 1), ours)


def _embeddings(home: str, shapes: Shapes) -> Iterator[Entry]:
    """Patches, and a class token before the table of positions; ``home`` is where ours lie."""
    for leaf in ("weight", "bias"):
        theirs = f"{TOWER}embeddings.patch_embedding.{leaf}"
        yield as_it_is(f"{home}.conv.{leaf}", theirs, shapes)
    side, _, width = shapes[f"{home}.positions"]
    yield Entry(
        f"{TOWER}embeddings.class_embedding",
        (1, 1, width),
        lambda value: {f"{home}.class_embedding": value.flatten()},
        lambda tensors: tensors[f"{home}.class_embedding"].view(1, 1, width),
    )

    def split(value: Tensor) -> dict[str, Tensor]:
        return {
            f"{home}.class_position": value[0, 0].clone(),
            f"{home}.positions": value[0, 1:].reshape(side, side, width).clone(),
        }

    def join(tensors: Tensors) -> Tensor:
        table = tensors[f"{home}.positions"].reshape(-1, width)
        return torch.cat([tensors[f"{home}.class_position"][None], table])[None]

    name = f"{TOWER}embeddings.position_embedding"
    yield Entry(name, (1, 1 + side * side, width), split, join)


def _layers(shapes: Shapes) -> Iterator[Entry]:
    for name in shapes:
        if found := re.fullmatch(r"patchifier\.vit\.layers\.(\d+)\.(.+?)(\.weight|\.bias|)", name):
            layer, block, leaf = found.groups()
            theirs = f"{TOWER}encoder.layers.{layer}.{_LAYER[block]}{leaf}"
            yield as_it_is(name, theirs, shapes)


def _mlp(home: str, shapes: Shapes) -> Iterator[Entry]:
    for block, theirs in _MLP.items():
        for leaf in ("weight", "bias"):
            yield as_it_is(f"{home}.{block}.{leaf}", f"{theirs}.{leaf}", shapes)
