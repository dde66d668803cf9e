"""The text quiz: its patterns, its items, and that the likeliest choice is what is taken."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

from lightning_mono.errors import AssetError, DataError
from lightning_mono.retention.quiz import (
    TOPICS,
    alternatives,
    mean_log_likelihoods,
    quiz,
    quiz_items,
)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("Lom['e|e'|e]", ("Lome",)),
        ("Rom[e|a]", ("Rome",)),
        ("Brussel{s}|Bruxelles", ("Brussels", "Bruxelles")),
        ("{Rep{ublic} of }South Africa", ("Republic of South Africa",)),
        ("{DR |Republic of the }Congo", ("DR Congo",)),
        ("P{'}yongyang", ("P'yongyang",)),
        ("Sana'a", ("Sana'a",)),
        ("lion|tiger|bear", ("lion", "tiger", "bear")),
        ("", ()),
    ],
)
def test_patterns_of_the_game(pattern: str, expected: tuple[str, ...]) -> None:
    assert alternatives(pattern) == expected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Quiz files in which every answer is the question in upper case."""
    words = ["ant", "bee", "cow", "dog", "elk", "fox", "gnu", "hen"]
    for topic in TOPICS:
        lines = [f"{word}:{word.upper()}|{word.title()}" for word in words]
        (tmp_path / topic).write_text("\n".join([*lines, "nothing:", "odd line"]))
    return tmp_path


def test_items_are_a_function_of_the_seed_and_have_one_right_choice(folder: Path) -> None:
    items = quiz_items(folder, per_topic=8)
    assert items == quiz_items(folder, per_topic=8)
    assert items != quiz_items(folder, per_topic=8, seed=1)
    assert len(items) == 8 * len(TOPICS)
    for item in items:
        assert len(set(item.choices)) == 4
        assert item.choices[item.right].lower() in item.prompt
        assert "nothing" not in item.prompt
    assert {item.right for item in items} == {0, 1, 2, 3}


def test_the_article_fits_the_noun(folder: Path) -> None:
    prompts = {item.prompt for item in quiz_items(folder, per_topic=8) if item.topic == "babies"}
    assert "An ant is a young" in prompts
    assert "A bee is a young" in prompts


def test_too_small_a_file_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="europe: 8 entries are too few for 20 items"):
        quiz_items(folder)
    (folder / "asia").unlink()
    with pytest.raises(DataError, match="asia: no such quiz file"):
        quiz_items(folder, per_topic=8)


@dataclass
class Output:
    logits: Tensor


class Bigram:
    """A causal model whose next token depends on the last one through a random table."""

    def __init__(self, vocabulary: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.table = torch.randn(vocabulary, vocabulary, generator=generator)

    def __call__(self, input_ids: Tensor) -> Output:
        return Output(self.table[input_ids])


def _tokenizer() -> Tokenizer:
    """One token a character."""
    tokenizer = Tokenizer(models.BPE({chr(i): i for i in range(128)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return tokenizer


def test_mean_log_likelihood_is_that_of_the_text_alone_and_knows_no_padding() -> None:
    model, tokenizer = Bigram(128), _tokenizer()
    pairs = [("ab", "c"), ("abc", "defgh"), ("z", " yx")]
    together = mean_log_likelihoods(model, tokenizer, pairs)
    for (prompt, text), value in zip(pairs, together, strict=True):
        log = model.table.log_softmax(-1)
        characters = prompt[-1] + text
        steps = [log[ord(a), ord(b)] for a, b in pairwise(characters)]
        assert value.item() == pytest.approx(torch.stack(steps).mean().item(), abs=1e-5)


def test_a_model_that_knows_the_answers_gets_all_and_one_that_hates_them_none(folder: Path) -> None:
    items = quiz_items(folder, per_topic=8)

    class Knowing:
        """Likes a text whose capitals spell what the prompt asked for."""

        def __init__(self, sign: float) -> None:
            self.sign = sign

        def __call__(self, input_ids: Tensor) -> Output:
            logits = torch.zeros(*input_ids.shape, 128)
            for row, ids in enumerate(input_ids.tolist()):
                text = "".join(map(chr, ids))
                right = text.rstrip("\0").rsplit(" ", 1)[1].lower() in text[:-4]
                for t in range(len(ids) - 1):
                    logits[row, t, ids[t + 1]] = self.sign * (5.0 if right else 0.0)
            return Output(logits)

    everything = quiz(Knowing(+1), _tokenizer(), items)
    assert (everything.correct, everything.total) == (40, 40)
    assert everything.by_topic == dict.fromkeys(TOPICS, (8, 8))
    assert quiz(Knowing(-1), _tokenizer(), items).correct == 0


@pytest.mark.slow
def test_the_real_files_make_clean_items() -> None:
    try:
        items = quiz_items()
    except AssetError as error:
        pytest.skip(str(error))
    assert len(items) == 20 * len(TOPICS)
    for item in items:
        assert not set("{}[]|\\") & set(item.prompt + "".join(item.choices)), item
