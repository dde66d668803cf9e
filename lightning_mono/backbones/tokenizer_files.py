"""The files around a tokenizer: what they say, and how they are written for others to read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lightning_mono.backbones.backbone import Backbone
from lightning_mono.backbones.chat import CHATML
from lightning_mono.backbones.shards import read_json
from lightning_mono.backbones.tokenizer import SENTENCEPIECE


@dataclass(frozen=True)
class TokenizerFiles:
    """What stands beside a tokenizer in a model folder.

    Attributes:
        settings: of tokenizer_config.json.
        carried: files that are handed on unchanged, by name: a SentencePiece model.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    carried: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def of_folder(cls, folder: Path) -> TokenizerFiles:
        settings = read_json(folder / "tokenizer_config.json", optional=True)
        return cls(settings, carried_files(folder))

    @classmethod
    def of_backbone(cls, backbone: Backbone) -> TokenizerFiles:
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
        return cls(settings, backbone.files)

    def write(self, folder: Path, tokenizer: Tokenizer) -> None:
        """Writes tokenizer.json, tokenizer_config.json and what is carried along.

        Where a SentencePiece model is carried, the tokens added to it are listed beside it: its
        readers know of them from there only.
        """
        tokenizer.save(str(folder / "tokenizer.json"))
        settings = dict(self.settings)
        for name, content in self.carried.items():
            (folder / name).write_bytes(content)
        if SENTENCEPIECE in self.carried:
            settings["added_tokens_decoder"] = {
                str(id): {
                    "content": token.content,
                    "lstrip": token.lstrip,
                    "normalized": token.normalized,
                    "rstrip": token.rstrip,
                    "single_word": token.single_word,
                    "special": token.special,
                }
                for id, token in tokenizer.get_added_tokens_decoder().items()
            }
        text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
        (folder / "tokenizer_config.json").write_text(text, "utf-8")


def carried_files(folder: Path) -> dict[str, bytes]:
    """Files of a folder that are handed on unchanged when a model is saved."""
    file = folder / SENTENCEPIECE
    return {SENTENCEPIECE: file.read_bytes()} if file.is_file() else {}
