"""A model as a folder: config.json and safetensors, in the published layout. Never a pickle."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mono.backbones.shards import SHARD_BYTES, Weights, write_weights
from lightning_mono.checkpoints import tensors as layout
from lightning_mono.checkpoints.atomic import explained, replacing
from lightning_mono.checkpoints.config import read_config, write_config
from lightning_mono.checkpoints.transformers_internvl import PublishedNames
from lightning_mono.errors import CheckpointError
from lightning_mono.model.assign import assign
from lightning_mono.model.config import MonoConfig
from lightning_mono.model.meta import on_meta
from lightning_mono.model.mono import MonoModel
from lightning_mono.model.quantised import quantised_linears


def save_model(
    model: MonoModel,
    folder: Path,
    further: Mapping[str, Any] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes a model; a run that is killed meanwhile leaves what was there before.

    Args:
        further: more entries of config.json, e.g. how images and chats are prepared.
        shard_bytes: weights above this are written as several files with an index.

    Raises:
        CheckpointError: the folder cannot be written, or the layout cannot express the model.
    """
    if any(quantised_linears(model)):
        raise CheckpointError(f"{folder}: restore the model's rounded weights before it is saved")
    state = {name: value.detach() for name, value in model.state_dict().items()}
    dtype = str(model.embed.weight.dtype).removeprefix("torch.")
    written = write_config(model.config, {**model.entries, **(further or {})})
    written["torch_dtype"] = dtype
    entries = layout.entries(model.config, {n: tuple(v.shape) for n, v in state.items()})
    values = ((entry.name, entry.join(state).contiguous()) for entry in entries)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_weights(folder, values, shard_bytes)
    with replacing(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _untied_where_stored_so(config: MonoConfig, weights: Weights) -> MonoConfig:
    """A composite model whose stored head is not its embeddings is untied, whatever it says.

    The official code reads such a head and never ties it.
    """
    name = layout.head(config)
    if config.patchifier is None or not config.decoder.tied or name not in weights.files:
        return config
    embeddings = layout.embeddings(config)
    if embeddings in weights.files and torch.equal(weights.read(name), weights.read(embeddings)):
        return config
    return replace(config, decoder=replace(config.decoder, tied=False))


def load_model(
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    image_size: int | None = None,
    place: Callable[[nn.Module, str, Tensor], None] = assign,
) -> MonoModel:
    """Reads a model folder, tensor by tensor: memory stays at the model plus one tensor.

    Args:
        dtype: of the weights; by default that of the files, float16 as float32.
        image_size: side of a tile in pixels, where it is to differ from the checkpoint's; the
            position table is resized bicubically.
        place: puts a weight into the model; another one may round it on the way.

    Raises:
        CheckpointError: a file is missing, broken, or of a model that is not supported.
    """
    config, entries = read_config(folder)
    if image_size is not None and config.patchifier is not None:
        table = config.patchifier.table_size or config.patchifier.image_size
        resized = replace(config.patchifier, image_size=image_size, table_size=table)
        config = replace(config, patchifier=resized)
    modular = config.patchifier is not None and config.patchifier.kind == "vit"
    weights = PublishedNames(folder) if modular else Weights(folder)
    config = _untied_where_stored_so(config, weights)
    with on_meta():
        model = MonoModel(config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    stored = layout.entries(config, shapes)
    copied = {layout.head(config)} if config.decoder.tied else set()
    weights.check_names({entry.name for entry in stored} - copied, copied)
    dtype = dtype or weights.dtype()
    # The largest first: what is read lies beside its copy for a moment, and there is room then.
    for entry in sorted(stored, key=lambda entry: -math.prod(entry.shape)):
        if entry.name in copied:
            continue
        value = weights.read(entry.name, entry.shape).to(dtype)
        for name, part in entry.split(value).items():
            place(model, name, part)
    model.entries = entries
    return model
