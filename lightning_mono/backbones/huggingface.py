"""Text LLMs in folders of Hugging Face layout: config.json, safetensors, a tokenizer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor

from lightning_mono.backbones.backbone import Backbone
from lightning_mono.backbones.chat import chat_of_template, stop_ids
from lightning_mono.backbones.config import DecoderConfig, tensor_shapes
from lightning_mono.backbones.families import find_family
from lightning_mono.backbones.families.stored import stored
from lightning_mono.backbones.located import located
from lightning_mono.backbones.shards import Weights, read_json, write_weights
from lightning_mono.backbones.tokenizer import read_tokenizer
from lightning_mono.backbones.tokenizer_files import TokenizerFiles, carried_files
from lightning_mono.errors import CheckpointError


def load_folder(folder: Path, dtype: torch.dtype = torch.float32) -> Backbone:
    """Loads a text LLM from a folder, tensor by tensor.

    Raises:
        CheckpointError: a file, setting or tensor is missing, damaged, or not supported.
    """
    config = folder_config(folder)
    tensors = _read_tensors(folder, config, dtype)
    tokenizer = read_tokenizer(folder)
    stops = stop_ids(tokenizer, token_ids(folder, "eos", tokenizer))
    if not stops:
        raise CheckpointError(f"{folder / 'config.json'}: no key eos_token_id: what ends a text?")
    return Backbone(
        name=folder.name,
        config=config,
        tensors=tensors,
        tokenizer=tokenizer,
        chat=folder_chat(folder, config.family),
        bos_id=next(iter(token_ids(folder, "bos", tokenizer)), None),
        eos_id=stops[0],
        pad_id=next(iter(token_ids(folder, "pad", tokenizer)), stops[0]),
        stop_ids=stops,
        files=carried_files(folder),
    )


def folder_config(folder: Path) -> DecoderConfig:
    """The shape that a folder's config.json describes; no weights are read.

    Raises:
        CheckpointError: the file is missing, or of a family or with a setting not supported.
    """
    path = folder / "config.json"
    settings = read_json(path)
    with located(path):
        return decoder_config(settings)


def decoder_config(settings: dict[str, Any]) -> DecoderConfig:
    """The decoder that a family's settings describe.

    Raises:
        CheckpointError: a family or setting that is not supported.
        KeyError: a setting is missing.
    """
    family = find_family(settings["model_type"])
    if "quantization_config" in settings:
        raise CheckpointError("its weights are quantised; use the plain ones, or a GGUF file")
    return family.read(settings)


def decoder_settings(config: DecoderConfig, architecture: str = "ForCausalLM") -> dict[str, Any]:
    """The inverse of `decoder_config`.

    Args:
        architecture: ending of the class name behind the family's.

    Raises:
        CheckpointError: the family's layout cannot express the decoder.
    """
    family = find_family(config.family)
    named = {"architectures": [family.base + architecture], "model_type": config.family}
    return {**named, **family.write(config)}


def token_ids(folder: Path, kind: str, tokenizer: Tokenizer) -> list[int]:
    """Ids of ``bos``, ``eos`` or ``pad``, by three files; the tokenizer's choice comes first."""
    word = read_json(folder / "tokenizer_config.json", optional=True).get(f"{kind}_token")
    word = word["content"] if isinstance(word, dict) else word
    found = [tokenizer.token_to_id(word)] if word else []
    for name in ("config.json", "generation_config.json"):
        declared = read_json(folder / name, optional=True).get(f"{kind}_token_id")
        found += declared if isinstance(declared, list) else [declared]
    return [id for id in found if id is not None]


def folder_chat(folder: Path, family: str) -> str:
    """The chat template that suits a folder: what config.json names, else what its Jinja means."""
    named = read_json(folder / "config.json").get("template")
    if isinstance(named, str):
        return named
    file = folder / "chat_template.jinja"
    jinja = read_json(folder / "tokenizer_config.json", optional=True).get("chat_template")
    return chat_of_template(file.read_text("utf-8") if file.is_file() else str(jinja), family)


def _read_tensors(folder: Path, config: DecoderConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    family, shapes = find_family(config.family), tensor_shapes(config)
    entries = stored(shapes, family.names)
    weights = Weights(folder)
    tied_head = [f"{family.names['head']}.weight"] if config.tied else []
    weights.check_names({entry.name for entry in entries}, ignored=tied_head)
    tensors: dict[str, Tensor] = {}
    for entry in entries:
        value = weights.read(entry.name, entry.shape(shapes)).to(dtype)
        tensors.update(entry.split(value, family, config))
    return tensors


def save_backbone(folder: Path, backbone: Backbone) -> None:
    """Writes a folder that `load_backbone` and transformers read.

    config.json is written last: a folder that a killed process left half-written has none, and
    loading says so.

    Args:
        folder: made if need be; a backbone that is there is replaced.
        backbone: of a family that has a Hugging Face layout.

    Raises:
        CheckpointError: the layout cannot express the model, or the folder cannot be written.
    """
    config, family = backbone.config, find_family(backbone.config.family)
    settings = decoder_settings(config)
    entries = stored(tensor_shapes(config), family.names)
    ids = {"bos_token_id": backbone.bos_id, "pad_token_id": backbone.pad_id}
    dtype = str(backbone.tensors["embed.weight"].dtype).removeprefix("torch.")
    settings |= {**ids, "eos_token_id": backbone.eos_id, "torch_dtype": dtype}
    generation = {**ids, "eos_token_id": list(backbone.stop_ids)}
    tensors = (
        (entry.name, entry.join(backbone.tensors, family, config).contiguous()) for entry in entries
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").unlink(missing_ok=True)
        write_weights(folder, tensors)
        TokenizerFiles.of_backbone(backbone).write(folder, backbone.tokenizer)
        _write(folder / "generation_config.json", generation)
        _write(folder / ".config.json", settings)
        os.replace(folder / ".config.json", folder / "config.json")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder} cannot be written: {error}") from error


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
