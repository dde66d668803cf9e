"""A text LLM as loaded: its shape, its weights under our names, and how to speak to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tokenizers import Tokenizer
from torch import Tensor

from lightning_mono.backbones.config import DecoderConfig


@dataclass
class Backbone:
    """A pre-trained decoder LLM.

    Attributes:
        name: what it was loaded as.
        config: its shape.
        tensors: its weights, named and shaped as `config.tensor_shapes` says.
        tokenizer: text to ids and back.
        chat: name of its chat template, e.g. ``chatml``.
        bos_id: id that opens a text, where the model knows one.
        eos_id: id that ends a text or a turn.
        pad_id: id for places that nothing reads.
        stop_ids: every id that ends generation, ``eos_id`` first.
        files: small files of its folder that are handed on unchanged when a model is saved.
    """

    name: str
    config: DecoderConfig
    tensors: dict[str, Tensor]
    tokenizer: Tokenizer
    chat: str
    bos_id: int | None
    eos_id: int
    pad_id: int
    stop_ids: tuple[int, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
