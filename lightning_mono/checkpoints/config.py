"""config.json of a model folder: InternVL's composite layout, and text LLMs as they are.

A monolithic model is written as the published Mono-InternVL checkpoints are: ``vision_config`` is
the patchifier, ``llm_config`` the decoder in its family's words. The class named in
``llm_config.architectures`` says where visual experts are:

- ``<Base>ForCausalLM``: nowhere;
- ``<Base>VEForCausalLM``: an FFN expert in every layer (Mono-InternVL; the official code reads
  ``InternLM2VEForCausalLM``);
- ``<Base>MonoForCausalLM``: where ``llm_config.visual_experts`` says. The official code has no
  such models and refuses the name, rather than load a part of the weights.

``vision_config.model_type`` says how pixels enter; `vision_config` has more.

A model without patchifier is a plain folder of its family, which transformers reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_mono.backbones.config import DecoderConfig
from lightning_mono.backbones.families import FAMILIES
from lightning_mono.backbones.huggingface import decoder_config, decoder_settings
from lightning_mono.backbones.located import located
from lightning_mono.backbones.shards import read_json
from lightning_mono.backbones.tokenizer import IMAGE_CONTEXT
from lightning_mono.checkpoints import transformers_internvl
from lightning_mono.checkpoints.vision_config import read_patchifier, vision_settings
from lightning_mono.errors import CheckpointError
from lightning_mono.model.config import ExpertsConfig, MonoConfig

COMPOSITE = "internvl_chat"
IMAGE_ID = "img_context_token_id"
_IMAGE_IDS = (IMAGE_ID, "image_context_token_id", "image_token_id")
_KINDS = ("ffn", "attention", "norms")


def read_config(folder: Path) -> tuple[MonoConfig, dict[str, Any]]:
    """A model's configuration, and all entries of config.json as the published layout has them.

    Raises:
        CheckpointError: the folder holds no model, or one that is not supported.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} is no model folder: it has no config.json")
    entries = read_json(path)
    with located(path):
        if entries.get("model_type") == transformers_internvl.MODEL_TYPE:
            entries = transformers_internvl.published_entries(entries)
        if entries.get("model_type") != COMPOSITE:
            return MonoConfig(decoder_config(entries)), entries
        decoder, experts = _decoder(_section(entries, "llm_config"))
        for lora in ("use_backbone_lora", "use_llm_lora"):
            if entries.get(lora):
                raise CheckpointError(f"{lora} is set: merge the LoRA weights first")
        patchifier = read_patchifier(entries, _section(entries, "vision_config"))
        declared = (entries.get(key) for key in _IMAGE_IDS)
        image_id = next((id for id in declared if id is not None), None)
        if image_id is None:
            image_id = _id_in_tokenizer(folder)
        return MonoConfig(decoder, patchifier, experts, image_id), entries


def write_config(config: MonoConfig, entries: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `read_config`.

    Args:
        entries: those the model was loaded with; what they say beyond ``config`` is kept.

    Raises:
        CheckpointError: the family's layout cannot express the decoder.
    """
    patchifier = config.patchifier
    if patchifier is None:
        return {**entries, **decoder_settings(config.decoder)}
    every = tuple(range(config.decoder.layers))
    if config.experts == ExpertsConfig():
        llm = decoder_settings(config.decoder)
    elif config.experts == ExpertsConfig(ffn=every):
        llm = decoder_settings(config.decoder, "VEForCausalLM")
    else:
        llm = decoder_settings(config.decoder, "MonoForCausalLM")
        llm["visual_experts"] = {kind: list(getattr(config.experts, kind)) for kind in _KINDS}
    known = {} if config.image_context_id is None else {IMAGE_ID: config.image_context_id}
    return {
        **entries,
        "architectures": ["InternVLChatModel"],
        "model_type": COMPOSITE,
        "vision_config": {**entries.get("vision_config", {}), **vision_settings(patchifier)},
        "llm_config": {**entries.get("llm_config", {}), **llm},
        "select_layer": -1,
        "downsample_ratio": 1 / patchifier.merge,
        "ps_version": patchifier.order,
        "force_image_size": patchifier.image_size,
        **known,
    }


def _section(entries: Mapping[str, Any], key: str) -> dict[str, Any]:
    section = entries[key]
    if not isinstance(section, dict):
        raise CheckpointError(f"{key} is not an object")
    return section


def _decoder(settings: dict[str, Any]) -> tuple[DecoderConfig, ExpertsConfig]:
    name = (settings.get("architectures") or [""])[0]
    families = {family.base: kind for kind, family in FAMILIES.items()}
    match = re.fullmatch(rf"({'|'.join(families)})(VE|Mono|)ForCausalLM", name)
    if not match:
        known = ", ".join(f"{base}[VE|Mono]ForCausalLM" for base in families)
        raise CheckpointError(f"unknown llm_config.architectures {name!r}; known are {known}")
    decoder = decoder_config({**settings, "model_type": families[match[1]]})
    every = tuple(range(decoder.layers))
    if match[2] == "Mono":
        return decoder, _placed(settings["visual_experts"], decoder.layers)
    return decoder, ExpertsConfig(ffn=every) if match[2] == "VE" else ExpertsConfig()


def _placed(placement: Any, layers: int) -> ExpertsConfig:
    try:
        placed = {kind: tuple(placement[kind]) for kind in _KINDS}
        fits = all(0 <= layer < layers for chosen in placed.values() for layer in chosen)
    except (TypeError, KeyError):
        fits = False
    if not fits:
        raise CheckpointError(
            f"llm_config.visual_experts must list layers below {layers} for {', '.join(_KINDS)}"
        )
    return ExpertsConfig(**placed)


def _id_in_tokenizer(folder: Path) -> int | None:
    """The image placeholder's id by the tokenizer's files; the published config lacks it."""
    added = read_json(folder / "added_tokens.json", optional=True)
    if IMAGE_CONTEXT in added:
        return int(added[IMAGE_CONTEXT])
    declared = read_json(folder / "tokenizer_config.json", optional=True)
    for id, token in (declared.get("added_tokens_decoder") or {}).items():
        if token.get("content") == IMAGE_CONTEXT:
            return int(id)
    for token in read_json(folder / "tokenizer.json", optional=True).get("added_tokens", ()):
        if token["content"] == IMAGE_CONTEXT:
            return int(token["id"])
    return None
