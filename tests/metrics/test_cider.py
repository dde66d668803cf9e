"""CIDEr-D equals pycocoevalcap's, and does what its definition says."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.cider.cider import Cider

from lightning_mono.metrics import Captions, CIDErD, ptb_words

WORDS = [
    "a",
    "man",
    "dog",
    "red",
    "bike",
    "on",
    "the",
    "street",
    "with",
    "two",
    "cats",
    "small",
    "table's",
    "don't",
    "(left)",
    "1,000",
    "...",
]

sentences = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)
corpora = st.lists(
    st.tuples(sentences, st.lists(sentences, min_size=1, max_size=5)), min_size=1, max_size=8
).map(lambda corpus: [("a", ["a dog"]), *corpus])  # pycocoevalcap cannot do without any word


def ours(corpus: list[tuple[str, list[str]]], words: object = ptb_words) -> list[float]:
    images = {str(n): Captions(tuple(refs), str(n)) for n, (_, refs) in enumerate(corpus)}
    metric = CIDErD(images, words=words)  # type: ignore[arg-type]
    metric.update([said for said, _ in corpus], list(images))
    results = metric.compute()
    scores = [results[f"cider/{name}"].item() for name in images]
    assert results["cider"].item() == pytest.approx(math.fsum(scores) / len(scores))
    return scores


@settings(max_examples=150)
@given(corpora)
def test_scores_are_those_of_pycocoevalcap(corpus: list[tuple[str, list[str]]]) -> None:
    for words in (str.split, ptb_words):
        said = {n: [" ".join(words(said))] for n, (said, _) in enumerate(corpus)}
        references = {n: [" ".join(words(r)) for r in refs] for n, (_, refs) in enumerate(corpus)}
        _, expected = Cider().compute_score(references, said)
        assert ours(corpus, words) == pytest.approx(list(expected), abs=1e-9)


def test_a_case_worked_out_by_hand() -> None:
    """Two images, one reference each, so that a word of one image has idf log 2.

    Said "a b" for "a b c" (2 pairs against 1 in length): of n = 1 the cosine is 2 / sqrt(2 * 3), of
    n = 2 it is 1 / sqrt(1 * 2), of n = 3 and 4 nothing; the penalty is exp(-1 / 72).
    """
    scores = ours([("a b", ["a b c"]), ("x", ["y z"])])
    expected = 10 / 4 * (2 / math.sqrt(6) + 1 / math.sqrt(2)) * math.exp(-1 / 72)
    assert scores == pytest.approx([expected, 0])


def test_a_reference_itself_scores_ten_if_its_words_are_its_own() -> None:
    scores = ours([("one red dog runs", ["one red dog runs"]), ("", ["two blue cats sit"])])
    assert scores == pytest.approx([10, 0])


def test_repeating_a_word_does_not_help() -> None:
    corpus = [("red dog", ["a red dog runs"]), ("cat", ["a blue cat sits"])]
    repeated = [("red red red red dog", ["a red dog runs"]), *corpus[1:]]
    assert ours(repeated)[0] < ours(corpus)[0]


def test_words_that_every_image_has_count_nothing() -> None:
    assert ours([("a", ["a dog"]), ("a", ["a cat"])]) == [0, 0]


def test_punctuation_and_case_do_not_count_with_the_field_s_words() -> None:
    draw = random.Random(1)
    corpus = [
        (" ".join(draw.sample(WORDS[:12], 6)), [" ".join(draw.sample(WORDS[:12], 6))] * 2)
        for _ in range(6)
    ]
    loud = [(said.upper() + " !", [f"“{r}”." for r in refs]) for said, refs in corpus]
    assert ours(loud) == pytest.approx(ours(corpus))


def test_images_without_references_are_refused() -> None:
    with pytest.raises(ValueError, match="question 7: it has no reference"):
        CIDErD({"7": Captions(())})
