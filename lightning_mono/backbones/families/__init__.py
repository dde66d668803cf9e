"""Model families: how each writes down its shape and names its tensors, one file a family."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightning_mono.backbones.config import DecoderConfig
from lightning_mono.backbones.families import internlm2, llama, qwen2, qwen3, settings
from lightning_mono.errors import CheckpointError


@dataclass(frozen=True)
class Packing:
    """How q, k and v lie in one tensor, where a family stores them so."""

    split: Callable[[Tensor, DecoderConfig], tuple[Tensor, ...]]
    join: Callable[[Sequence[Tensor], DecoderConfig], Tensor]


@dataclass(frozen=True)
class Gguf:
    """A family's conventions in GGUF files."""

    read: Callable[[Mapping[str, Any], Collection[str]], DecoderConfig]
    names: Mapping[str, str]


@dataclass(frozen=True)
class Family:
    """A model family's conventions in Hugging Face folders.

    Attributes:
        base: its classes are called ``<base>ForCausalLM`` and the like.
        read: config.json to a decoder's shape.
        write: the inverse of ``read``.
        names: our stems to theirs, without modality; parts of one packed tensor share a name.
        packing: how such parts lie in it.
        gguf: None where GGUF files of the family are not read.
    """

    base: str
    read: Callable[[Mapping[str, Any]], DecoderConfig]
    write: Callable[[DecoderConfig], dict[str, Any]]
    names: Mapping[str, str]
    packing: Packing | None = None
    gguf: Gguf | None = None


FAMILIES = {
    "internlm2": Family(
        "InternLM2",
        internlm2.from_huggingface,
        internlm2.to_huggingface,
        internlm2.NAMES,
        packing=Packing(internlm2.split, internlm2.join),
    ),
    "llama": Family(
        "Llama",
        llama.from_huggingface,
        llama.to_huggingface,
        settings.NAMES,
        gguf=Gguf(llama.from_gguf, llama.GGUF_NAMES),
    ),
    "qwen2": Family("Qwen2", qwen2.from_huggingface, qwen2.to_huggingface, settings.NAMES),
    "qwen3": Family("Qwen3", qwen3.from_huggingface, qwen3.to_huggingface, qwen3.NAMES),
}


def find_family(name: str) -> Family:
    """The family of a model type.

    Raises:
        CheckpointError: it is not one of ours.
    """
    if name not in FAMILIES:
        raise CheckpointError(f"model family {name!r} is not supported, only {', '.join(FAMILIES)}")
    return FAMILIES[name]
