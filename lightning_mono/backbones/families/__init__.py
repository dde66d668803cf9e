"""Model families: how each writes down its shape and names its tensors, one file a family."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_mono.backbones.config import DecoderConfig, tensor_shapes
from lightning_mono.backbones.families import llama
from lightning_mono.errors import CheckpointError


@dataclass(frozen=True)
class Family:
    """A model family's conventions, in Hugging Face folders and in GGUF files."""

    from_huggingface: Callable[[Mapping[str, Any]], DecoderConfig]
    to_huggingface: Callable[[DecoderConfig], dict[str, Any]]
    from_gguf: Callable[[Mapping[str, Any], Collection[str]], DecoderConfig]
    huggingface_names: Mapping[str, str]
    gguf_names: Mapping[str, str]


FAMILIES = {
    "llama": Family(
        from_huggingface=llama.from_huggingface,
        to_huggingface=llama.to_huggingface,
        from_gguf=llama.from_gguf,
        huggingface_names=llama.HUGGINGFACE_NAMES,
        gguf_names=llama.GGUF_NAMES,
    ),
}


def find_family(name: str) -> Family:
    """The family of a model type.

    Raises:
        CheckpointError: it is not one of ours.
    """
    if name not in FAMILIES:
        raise CheckpointError(f"model family {name!r} is not supported, only {', '.join(FAMILIES)}")
    return FAMILIES[name]


def rename(config: DecoderConfig, names: Mapping[str, str]) -> dict[str, str]:
    """Each of the decoder's tensor names, and what a family calls it: ``{ours: theirs}``."""
    renamed = {}
    for ours in tensor_shapes(config):
        prefix, stem = "", ours
        if ours.startswith("layers."):
            _, layer, stem = ours.split(".", 2)
            prefix = f"{names['layers']}.{layer}."
        stem, kind = stem.rsplit(".", 1)
        renamed[ours] = f"{prefix}{names[stem]}.{kind}"
    return renamed
