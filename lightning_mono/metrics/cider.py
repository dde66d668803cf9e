"""CIDEr-D: how much a caption says what people say of an image (COCO, Flickr30k, NoCaps)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_mono.metrics.answers import AnswerMetric, mean
from lightning_mono.metrics.ptb import ptb_words

LONGEST = 4  # words in an n-gram
SIGMA = 6.0  # of the penalty on a difference in length
NGram = tuple[str, ...]


@dataclass(frozen=True)
class Captions:
    """What people wrote of one image."""

    references: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True)
class _Weights:
    """A caption as tf-idf weights of its n-grams, by their length."""

    weights: tuple[dict[NGram, float], ...]
    norms: tuple[float, ...]
    length: int


class CIDErD(AnswerMetric[Captions]):
    """CIDEr-D of one caption an image, with the references of all images as the corpus.

    Vedantam et al. 2015, section 5 (equations 1 to 4 with the clipping and the length penalty of
    CIDEr-D), as pycocoevalcap's `Cider` computes it and papers report it, there in hundredths.
    Results: `cider`, between 0 and 10, and `cider/<kind>`. Weights of n-grams come from all
    images whatever the kind; NoCaps' server takes each domain's from its own images, for which
    build a metric of each.

    Args:
        questions: the references of each image.
        words: splits a caption into words; by default as COCO's scripts do, see `ptb.py`.
            `str.split` is pycocoevalcap without its tokenizer, as in VLMEvalKit.
    """

    columns = ("cider",)

    def __init__(
        self,
        questions: Mapping[str, Captions],
        words: Callable[[str], Sequence[str]] = ptb_words,
        **options: Any,
    ) -> None:
        super().__init__(questions, **options)
        self.words = words
        self.images_with: Counter[NGram] = Counter()
        for question in questions.values():
            ngrams = (self._ngrams(reference) for reference in question.references)
            self.images_with.update(set().union(*ngrams))

    def check(self, question: Captions) -> None:
        """Refuse an image without references."""
        if not question.references:
            raise ValueError("it has no reference captions")

    def measure(self, prediction: str, question: Captions) -> tuple[float, ...]:
        """Return 10 times the mean, over n-gram lengths and references, of the similarity."""
        said = self._weigh(prediction)
        alike = [_similarity(said, self._weigh(reference)) for reference in question.references]
        return (10 * mean(alike),)

    def _ngrams(self, caption: str) -> Counter[NGram]:
        words = list(self.words(caption))
        return Counter(
            tuple(words[start : start + n])
            for n in range(1, LONGEST + 1)
            for start in range(len(words) - n + 1)
        )

    def _weigh(self, caption: str) -> _Weights:
        images = math.log(len(self.questions))
        weights: tuple[dict[NGram, float], ...] = tuple({} for _ in range(LONGEST))
        length = 0
        for ngram, count in self._ngrams(caption).items():
            rarity = images - math.log(max(1, self.images_with[ngram]))
            weights[len(ngram) - 1][ngram] = count * rarity
            length += count if len(ngram) == 2 else 0  # pycocoevalcap counts pairs for the length
        norms = tuple(math.sqrt(sum(w * w for w in by_length.values())) for by_length in weights)
        return _Weights(weights, norms, length)


def _similarity(said: _Weights, reference: _Weights) -> float:
    """Return the mean over n-gram lengths of the clipped cosine, less the penalty on length."""
    cosines = []
    for ours, theirs, norm, norm_theirs in zip(
        said.weights, reference.weights, said.norms, reference.norms, strict=True
    ):
        shared = sum(min(w, theirs[g]) * theirs[g] for g, w in ours.items() if g in theirs)
        cosines.append(shared / (norm * norm_theirs) if norm and norm_theirs else 0.0)
    return mean(cosines) * math.exp(-((said.length - reference.length) ** 2) / (2 * SIGMA**2))
