"""Held-out text: rows, and the bytes behind their tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lightning_mono.errors import DataError
from lightning_mono.retention import held_out_text
from lightning_mono.testing import tiny_backbone

TOKENIZER: Tokenizer = tiny_backbone().tokenizer


def plain(texts: list[str]) -> list[int]:
    documents = [text + "\n\n" for text in texts if text]
    ids = (TOKENIZER.encode(text, add_special_tokens=False).ids for text in documents)
    return [i for document in ids for i in document]


@given(
    st.lists(st.text(st.characters(codec="ascii", exclude_characters="<|>"))),
    st.integers(2, 7),
    st.integers(1, 60),
)
def test_rows_hold_the_text_and_its_bytes(texts: list[str], width: int, tokens: int) -> None:
    ids = plain(texts)
    rows = min(len(ids), tokens) // width
    if rows == 0:
        with pytest.raises(DataError, match="tokens of text, and a row takes"):
            held_out_text(texts, TOKENIZER, tokens, width)
        return
    found = held_out_text(texts, TOKENIZER, tokens, width)
    assert found.ids.flatten().tolist() == ids[: rows * width]
    assert found.predicted == rows * (width - 1)
    # A byte-level token spells each of its bytes with one character.
    sizes = torch.tensor([len(TOKENIZER.id_to_token(i)) for i in ids[: rows * width]])
    assert found.bytes.tolist() == sizes.view(rows, width)[:, 1:].sum(1).tolist()


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_bytes_of_any_script_add_up(text: str) -> None:
    document = (text + "\n\n").encode()
    ids = plain([text])
    found = held_out_text([text], TOKENIZER, len(ids), len(ids))
    first = TOKENIZER.encode(text + "\n\n", add_special_tokens=False).offsets[0][1]
    assert int(found.bytes) == len(document) - len((text + "\n\n")[:first].encode())


def test_no_more_text_is_read_than_is_needed() -> None:
    def texts():  # type: ignore[no-untyped-def]
        yield "a red circle " * 20
        raise AssertionError("read on")

    assert held_out_text(texts(), TOKENIZER, 16, 8).ids.shape == (2, 8)
