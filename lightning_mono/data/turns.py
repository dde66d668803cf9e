"""A chat template made ready for a model: questions, pictures and answers as parts to write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TypeVar

from tokenizers import Tokenizer

from lightning_mono.backbones.tokenizer import ImageTokens
from lightning_mono.data.images import ImageProcessor, decode
from lightning_mono.data.sample import PLACEHOLDER, Sample, without_leading
from lightning_mono.data.templates import ChatTemplate
from lightning_mono.data.words import Part
from lightning_mono.errors import DataError

Picture = TypeVar("Picture")
Question = tuple[list[Part], list[Part]]
"""What stands in front of a question, pictures for the most part; and the question itself."""


class Turns:
    """The pieces of a template with their special tokens found.

    Attributes:
        close: the token that ends an answer, and a document.
        between: what stands between an answer and the pictures of the next question.
        stops: the tokens at which generation ends.
    """

    def __init__(
        self,
        template: ChatTemplate,
        tokenizer: Tokenizer,
        image_tokens: ImageTokens | None,
        images: ImageProcessor | None,
        tokens_per_tile: int,
    ) -> None:
        """Looks the template's special tokens up.

        Raises:
            DataError: the tokenizer lacks the token that opens a conversation or ends an answer.
        """
        self._template = template
        self._image_tokens = image_tokens
        self._images = images
        self._tokens_per_tile = tokens_per_tile
        added = tokenizer.get_added_tokens_decoder().items()
        self._specials = {token.content: id for id, token in added if token.special}
        longest_first = sorted(self._specials, key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")
        self.close = _first_known(tokenizer, template.answer_close)
        self.start = [_first_known(tokenizer, [template.opening])] if template.opening else []
        self.between = self._markup(template.between + template.turn_open)
        stops = (tokenizer.token_to_id(token) for token in template.stops)
        self.stops: tuple[int, ...] = tuple(stop for stop in stops if stop is not None)

    def opening(self, system: str, front: Sequence[Part], text: str) -> list[Part]:
        """All that stands before the first question.

        Args:
            system: the system message; empty for none.
            front: what stands in front of the first question.
            text: what the questions are about; may be empty.
        """
        before, after = self._template.system.split("{system}")
        said = [*self._markup(before), system, *self._markup(after)] if system else []
        about = [text.strip() + "\n"] if text.strip() else []
        return [*self.start, *said, *self._markup(self._template.turn_open), *front, *about]

    def pictures(self, sizes: Sequence[tuple[int, int]], name: str) -> list[list[Part]]:
        """The tokens of each of the pictures that share the tiles of a sample or turn.

        Raises:
            DataError: the model has no eyes.
        """
        if not sizes:
            return []
        if self._images is None or self._image_tokens is None:
            raise DataError(f"{name} has an image, but the model takes text only")
        tokens = self._image_tokens
        counts = [self._images.tile_count(*size, len(sizes)) for size in sizes]
        return [
            [tokens.start, *[tokens.context] * count * self._tokens_per_tile, tokens.end]
            for count in counts
        ]

    def of_sample(self, sample: Sample) -> list[Question]:
        """The questions of a sample with its pictures.

        Raises:
            DataError: an image cannot be read, or stands where it cannot.
        """
        sizes = sample.sizes or [decode(image, sample.id).size for image in sample.images]
        pictures = self.pictures(sizes, sample.id)
        questions = [exchange.question for exchange in sample.exchanges]
        if not sample.dialogue:
            leading, questions[0] = without_leading(questions[0])
            check_places(leading, len(pictures), sample.id)
            if any(PLACEHOLDER in question for question in questions):
                raise DataError(
                    f"{sample.id}: {PLACEHOLDER} among exchanges that are independent; "
                    "write it before the first question, or make them a dialogue"
                )
        shares = share_out(questions, pictures, sample.id)
        return [
            self.asked(question, share, sample.id)
            for question, share in zip(questions, shares, strict=True)
        ]

    def asked(self, question: str, pictures: Sequence[Sequence[Part]], name: str) -> Question:
        """A question, up to where its answer begins.

        Args:
            question: with a placeholder for each picture, or with none.
            pictures: the tokens of each.
            name: of the turn or sample, for messages.

        Returns:
            What stands in front of the question: without placeholders, or where each is a line
            of its own that opens the question, its pictures. And all behind that.

        Raises:
            DataError: the placeholders are not as many as the pictures.
        """
        question = question.strip()
        check_places(question.count(PLACEHOLDER), len(pictures), name)
        lines = f"{PLACEHOLDER}\n" * len(pictures)
        front: list[Part] = []
        if PLACEHOLDER not in question or question.startswith(lines):
            front = [part for picture in pictures for part in (*picture, "\n")]
            question, pictures = question.removeprefix(lines), ()
        first, *others = self._template.question.format(question=question).split(PLACEHOLDER)
        words: list[Part] = [first]
        for picture, other in zip(pictures, others, strict=True):
            words += [*picture, other]
        return front, [*words, *self._markup(self._template.question_close)]

    def answered(self, answer: str) -> list[Part]:
        """An answer and the token that ends it."""
        return [self._template.answer.format(answer=answer.strip()), self.close]

    def _markup(self, text: str) -> list[Part]:
        return [self._specials.get(piece, piece) for piece in self._special.split(text)]


def share_out(
    questions: Sequence[str], pictures: Sequence[Picture], name: str
) -> list[Sequence[Picture]]:
    """The pictures of each question: as many as it has placeholders; without any, the first's.

    Raises:
        DataError: the placeholders are not as many as the pictures.
    """
    places = [question.count(PLACEHOLDER) for question in questions]
    check_places(sum(places), len(pictures), name)
    if not any(places):
        places[0] = len(pictures)
    return [pictures[start:end] for start, end in pairwise(accumulate(places, initial=0))]


def check_places(places: int, pictures: int, name: str) -> None:
    """Placeholders stand for all pictures, or there are none.

    Raises:
        DataError: otherwise.
    """
    if places not in (0, pictures):
        count = f"{pictures} picture{'' if pictures == 1 else 's'}"
        raise DataError(
            f"{name}: {places} {PLACEHOLDER} in the text but {count}; "
            f"write {PLACEHOLDER} once for each picture, or not at all"
        )


def _first_known(tokenizer: Tokenizer, tokens: Sequence[str]) -> int:
    ids = (tokenizer.token_to_id(token) for token in tokens)
    known = next((id for id in ids if id is not None), None)
    if known is None:
        raise DataError(f"the tokenizer has no {' or '.join(tokens)}; use another chat template")
    return known
