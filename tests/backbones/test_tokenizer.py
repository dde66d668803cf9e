"""Tokenizers: they spell any text, do not depend on luck, and agree with their files' owners."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lightning_mono.backbones import add_image_tokens, train_bpe
from lightning_mono.backbones.tokenizer import tokenizer_from_file, tokenizer_from_gguf
from lightning_mono.errors import CheckpointError

TEXTS = ["A red circle is left of a blue square.", "Is there a circle? yes"] * 4
TOKENIZER = train_bpe(TEXTS, 290)


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text


def test_training_is_deterministic_and_keeps_the_first_ids_for_the_chat() -> None:
    assert train_bpe(iter(TEXTS), 290).to_str() == TOKENIZER.to_str()
    assert TOKENIZER.get_vocab_size() == 290
    assert TOKENIZER.encode("<|endoftext|><|im_start|><|im_end|>").ids == [0, 1, 2]
    assert len(TOKENIZER.encode("a circle").ids) < len("a circle")


def test_digits_stand_alone() -> None:
    tokenizer = train_bpe(["12345 12345 12345"] * 9, 300)
    assert tokenizer.encode("123").tokens == ["1", "2", "3"]


def test_a_vocabulary_too_small_for_the_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="258 is less than 259"):
        train_bpe(TEXTS, 258)


def test_image_tokens_are_single_tokens_and_are_added_once() -> None:
    tokenizer = Tokenizer.from_str(TOKENIZER.to_str())
    tokens = add_image_tokens(tokenizer)
    assert (tokens.start, tokens.end, tokens.context) == (290, 291, 292)
    assert tokenizer.encode("a<img><IMG_CONTEXT></img>").ids[1:] == [290, 292, 291]
    assert add_image_tokens(tokenizer) == tokens
    assert tokenizer.get_vocab_size() == 299


def test_padding_and_truncation_of_a_file_are_dropped(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_str(TOKENIZER.to_str())
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = tokenizer_from_file(tmp_path / "tokenizer.json")
    assert loaded.encode("a red circle").ids == TOKENIZER.encode("a red circle").ids


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        tokenizer_from_file(path)
    path.write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is no tokenizer"):
        tokenizer_from_file(path)


def test_an_unknown_tokenizer_in_a_gguf_file_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"\(llama, default\) is not supported"):
        tokenizer_from_gguf({"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default"})
