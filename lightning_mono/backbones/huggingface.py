"""Folders in Hugging Face layout: config.json, safetensors (in shards or not), tokenizer.json."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from lightning_mono.backbones.backbone import Backbone
from lightning_mono.backbones.chat import CHATML, chat_of_template, stop_ids
from lightning_mono.backbones.config import DecoderConfig, tensor_shapes
from lightning_mono.backbones.families import find_family, rename
from lightning_mono.backbones.located import located
from lightning_mono.backbones.tokenizer import tokenizer_from_file
from lightning_mono.errors import CheckpointError

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


def load_folder(folder: Path, dtype: torch.dtype = torch.float32) -> Backbone:
    """Loads a text LLM from a folder; weights already of ``dtype`` stay memory-mapped.

    Raises:
        CheckpointError: a file, setting or tensor is missing, damaged, or not supported.
    """
    config = folder_config(folder)
    tensors = _read_tensors(folder, config, dtype)
    tokenizer = tokenizer_from_file(folder / "tokenizer.json")
    stops = stop_ids(tokenizer, _ids(folder, "eos", tokenizer))
    if not stops:
        raise CheckpointError(f"{folder / 'config.json'}: no key eos_token_id: what ends a text?")
    return Backbone(
        name=folder.name,
        config=config,
        tensors=tensors,
        tokenizer=tokenizer,
        chat=chat_of_template(_chat_template(folder)),
        bos_id=next(iter(_ids(folder, "bos", tokenizer)), None),
        eos_id=stops[0],
        pad_id=next(iter(_ids(folder, "pad", tokenizer)), stops[0]),
        stop_ids=stops,
    )


def folder_config(folder: Path) -> DecoderConfig:
    """The shape that a folder's config.json describes; no weights are read.

    Raises:
        CheckpointError: the file is missing, or of a family or with a setting not supported.
    """
    path = folder / "config.json"
    settings = _json(path)
    with located(path):
        family = find_family(settings["model_type"])
        if "quantization_config" in settings:
            raise CheckpointError("its weights are quantised; use the plain ones, or a GGUF file")
        return family.from_huggingface(settings)


def _ids(folder: Path, kind: str, tokenizer: Tokenizer) -> list[int]:
    """Ids of ``bos``, ``eos`` or ``pad``, by three files; the tokenizer's choice comes first."""
    word = _json(folder / "tokenizer_config.json", optional=True).get(f"{kind}_token")
    word = word["content"] if isinstance(word, dict) else word
    found = [tokenizer.token_to_id(word)] if word else []
    for name in ("config.json", "generation_config.json"):
        declared = _json(folder / name, optional=True).get(f"{kind}_token_id")
        found += declared if isinstance(declared, list) else [declared]
    return [id for id in found if id is not None]


def _chat_template(folder: Path) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    return str(_json(folder / "tokenizer_config.json", optional=True).get("chat_template"))


def _json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    if not path.is_file():
        if optional:
            return {}
        raise CheckpointError(f"{path} is missing: not a model folder in Hugging Face layout")
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return content


def _read_tensors(folder: Path, config: DecoderConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    names = rename(config, find_family(config.family).huggingface_names)
    shapes = tensor_shapes(config)
    shards = _shards(folder)
    _check_names(folder, set(names.values()), set(shards), config)
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(shards.values())):
        with _opened(shard) as file:
            for ours, theirs in names.items():
                if shards[theirs] != shard:
                    continue
                value = file.get_tensor(theirs)
                if value.shape != shapes[ours]:
                    found, expected = tuple(value.shape), shapes[ours]
                    raise CheckpointError(
                        f"{shard}: {theirs} has shape {found}, config.json says {expected}"
                    )
                tensors[ours] = value.to(dtype)
    return tensors


def _check_names(folder: Path, wanted: set[str], found: set[str], config: DecoderConfig) -> None:
    """Nothing may be missing, nor left over: an unread tensor would change what is computed."""
    if wanted - found:
        raise CheckpointError(f"{folder}: no tensor {min(wanted - found)}")
    left = {name for name in found - wanted if not name.endswith("rotary_emb.inv_freq")}
    if config.tied:
        left.discard("lm_head.weight")
    if left:
        raise CheckpointError(f"{folder}: tensor {min(left)} has no place in this model")


def _shards(folder: Path) -> dict[str, Path]:
    """The file of every tensor, by their names."""
    single, index = folder / _WEIGHTS, folder / _INDEX
    if index.is_file():
        files = _json(index).get("weight_map")
        if not isinstance(files, dict):
            raise CheckpointError(f"{index}: no key weight_map")
        shards = {name: folder / file for name, file in files.items()}
        missing = sorted({shard for shard in shards.values() if not shard.is_file()})
        if missing:
            raise CheckpointError(f"{missing[0]} is missing: {_INDEX} names it; fetch it again")
        return shards
    if single.is_file():
        with _opened(single) as file:
            return dict.fromkeys(file.keys(), single)
    pickles = sorted(path for end in ("bin", "pt", "pth") for path in folder.glob(f"*.{end}"))
    if pickles:
        raise CheckpointError(
            f"{pickles[0]} is a pickle, which can run code, and is not read: "
            "convert it to safetensors"
        )
    raise CheckpointError(f"{single} is missing")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or cut short: {error}") from error


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
    family = find_family(backbone.config.family)
    settings = family.to_huggingface(backbone.config)
    names = rename(backbone.config, family.huggingface_names)
    tensors = {theirs: backbone.tensors[ours].contiguous() for ours, theirs in names.items()}
    ids = {"bos_token_id": backbone.bos_id, "pad_token_id": backbone.pad_id}
    dtype = str(backbone.tensors["embed.weight"].dtype).removeprefix("torch.")
    settings |= {**ids, "eos_token_id": backbone.eos_id, "torch_dtype": dtype}
    generation = {**ids, "eos_token_id": list(backbone.stop_ids)}
    try:
        _write_folder(folder, backbone, tensors, settings, generation)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder} cannot be written: {error}") from error


def _write_folder(
    folder: Path,
    backbone: Backbone,
    tensors: dict[str, Tensor],
    settings: dict[str, Any],
    generation: dict[str, Any],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").unlink(missing_ok=True)
    (folder / _INDEX).unlink(missing_ok=True)
    # Aside first: the tensors may be memory maps of the very file that is replaced.
    save_file(tensors, folder / f".{_WEIGHTS}", metadata={"format": "pt"})
    os.replace(folder / f".{_WEIGHTS}", folder / _WEIGHTS)
    backbone.tokenizer.save(str(folder / "tokenizer.json"))
    _write(folder / "tokenizer_config.json", _tokenizer_settings(backbone))
    _write(folder / "generation_config.json", generation)
    _write(folder / ".config.json", settings)
    os.replace(folder / ".config.json", folder / "config.json")


def _tokenizer_settings(backbone: Backbone) -> dict[str, Any]:
    word = backbone.tokenizer.id_to_token
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": word(backbone.eos_id),
        "pad_token": word(backbone.pad_id),
        "model_max_length": backbone.config.max_positions,
        "clean_up_tokenization_spaces": False,
    }
    if backbone.bos_id is not None:
        settings["bos_token"] = word(backbone.bos_id)
    if backbone.chat == "chatml":
        settings["chat_template"] = CHATML
    return settings


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
