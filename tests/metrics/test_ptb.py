"""Words of captions: those of Stanford's tokenizer, and nothing of the punctuation.

ptb.jsonl holds captions and awkward lines of our own with the tokens that CoreNLP 3.4.1 makes of
them (edu.stanford.nlp.process.PTBTokenizer -preserveLines -lowerCase).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_mono.metrics import ptb_words
from lightning_mono.metrics.ptb import PUNCTUATION

LINES = [
    json.loads(line) for line in Path(__file__).with_name("ptb.jsonl").read_text().splitlines()
]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line["caption"][:40])
def test_words_are_those_of_the_java_tokenizer(line: dict[str, list[str]]) -> None:
    expected = [token for token in line["tokens"] if token not in PUNCTUATION]
    assert " ".join(ptb_words(str(line["caption"]))).split() == expected


def test_a_caption_by_hand() -> None:
    words = ptb_words("Two men's T-shirts (one red) don't cost $1,000; isn't that \"odd\"?")
    assert words == (
        [
            "two",
            "men",
            "'s",
            "t-shirts",
            "-lrb-",
            "one",
            "red",
            "-rrb-",
            "do",
            "n't",
            "cost",
            "$",
            "1,000",
            "is",
            "n't",
            "that",
            "odd",
        ]
    )


@given(st.text())
def test_any_text_has_words_in_lower_case_without_marks_or_blanks(text: str) -> None:
    for word in ptb_words(text):
        assert word
        assert word not in PUNCTUATION
        assert word == word.lower()
        assert not any(letter.isspace() for letter in word.replace(" ", "")) or word.startswith("<")


@given(st.lists(st.sampled_from(["a", "red", "dog's", "t-shirt", "isn't", "here"]), max_size=8))
def test_blanks_between_words_do_not_matter(words: list[str]) -> None:
    assert ptb_words(" ".join(words)) == ptb_words("  \t".join(words) + "  ")
