"""Samples to tokens: chat template, image placeholders, branches, and which tokens are targets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

from lightning_mono.backbones.tokenizer import ImageTokens
from lightning_mono.data.images import ImageProcessor, decode
from lightning_mono.data.sample import Exchange, Sample
from lightning_mono.data.templates import ChatTemplate
from lightning_mono.errors import DataError


@dataclass(frozen=True)
class Example:
    """One sample as tokens.

    Attributes:
        id: the sample's id.
        input_ids: (tokens,) int64.
        positions: (tokens,) int64; every branch counts on from the end of the prefix.
        branches: (tokens,) int32; 0 is the shared prefix, 1 and up are the exchanges.
        supervised: (tokens,) bool; True where the token is to be predicted.
        tiles: (tiles, size, size, 3) uint8.
        dropped: exchanges that did not fit; 1 for a document that was cut.
    """

    id: str
    input_ids: np.ndarray
    positions: np.ndarray
    branches: np.ndarray
    supervised: np.ndarray
    tiles: np.ndarray
    dropped: int

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, in bytes."""
        arrays = (self.input_ids, self.positions, self.branches, self.supervised, self.tiles)
        return sum(array.nbytes for array in arrays)


@dataclass(frozen=True)
class Prompt:
    """What a model is asked: (tokens,) int64, and (tiles, 3, size, size) float32."""

    input_ids: np.ndarray
    pixel_values: np.ndarray


@dataclass
class _Tokens:
    """Tokens of one example as they are laid down, one entry a token in each list."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    supervised: list[bool] = field(default_factory=list)
    dropped: int = 0

    def add(self, ids: list[int], start: int, branch: int, supervised: bool) -> None:
        self.ids += ids
        self.positions += range(start, start + len(ids))
        self.branches += [branch] * len(ids)
        self.supervised += [supervised] * len(ids)


class Renderer:
    """Turns samples into examples, and questions into prompts of the very same tokens.

    A sample is laid out as a prefix, which holds the images and the text, and one branch for each
    exchange; a branch sees the prefix and itself. Ten questions about one picture so cost one
    picture. The turns of a dialogue follow each other in one branch.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        image_tokens: ImageTokens | None = None,
        images: ImageProcessor | None = None,
        tokens_per_tile: int = 0,
    ) -> None:
        """Prepares the pieces that are the same in every sample.

        Args:
            tokenizer: of the backbone, with the image tokens added.
            template: how turns are written.
            image_tokens: their ids; None for a model without eyes.
            images: how pictures are cut; None for a model without eyes.
            tokens_per_tile: visual tokens of a tile.

        Raises:
            DataError: the tokenizer lacks the token that ends an answer.
        """
        end = tokenizer.token_to_id(template.answer_close)
        if end is None:
            raise DataError(f"the tokenizer has no {template.answer_close}")
        self.tokenizer = tokenizer
        self.template = template
        self.image_tokens = image_tokens
        self.images = images
        self.tokens_per_tile = tokens_per_tile
        stops = (tokenizer.token_to_id(token) for token in template.stops)
        self.stop_ids: tuple[int, ...] = tuple(stop for stop in stops if stop is not None)
        self._literal = Tokenizer.from_str(tokenizer.to_str())
        self._newline = self._words("\n")
        self._turn_open = self._markup(template.turn_open)
        self._question_close = self._markup(template.question_close)
        self._answer_close = [end]
        self._between = self._markup(template.between + template.turn_open)

    def example(self, sample: Sample, max_length: int) -> Example | None:
        """Renders a sample with its pixels.

        Args:
            sample: what to render.
            max_length: most tokens; exchanges that do not fit are dropped and counted.

        Returns:
            The example, or None when nothing supervised fits.

        Raises:
            DataError: an image cannot be read.
        """
        tokens = self._lay(sample, max_length)
        if tokens is None:
            return None
        return Example(
            id=sample.id,
            input_ids=np.array(tokens.ids, np.int64),
            positions=np.array(tokens.positions, np.int64),
            branches=np.array(tokens.branches, np.int32),
            supervised=np.array(tokens.supervised, bool),
            tiles=self._tiles(sample.images, sample.id),
            dropped=tokens.dropped,
        )

    def length(self, sample: Sample, max_length: int) -> tuple[int, int]:
        """Tokens and dropped exchanges of :meth:`example`, without its pixels; (0, n) for None."""
        tokens = self._lay(sample, max_length)
        return (len(tokens.ids), tokens.dropped) if tokens else (0, len(sample.exchanges))

    def prompt(
        self,
        question: str,
        images: Sequence[bytes | Image.Image] = (),
        *,
        text: str = "",
        history: Sequence[Exchange] = (),
    ) -> Prompt:
        """A question up to where the answer begins.

        Args:
            question: what is asked.
            images: pictures that open the first turn.
            text: what the first turn is about, after the pictures.
            history: turns that came before, with their answers.

        Raises:
            DataError: an image cannot be read, or the model takes none.
        """
        pictures = [decode(i, "image") if isinstance(i, bytes) else i for i in images]
        ids = self._prefix(text, [picture.size for picture in pictures], "prompt")
        for past in history:
            asked, answered = self._exchange(past)
            ids += asked + answered + self._between
        ids += self._asked(question)
        tiles = self._tiles(pictures, "prompt")
        return Prompt(np.array(ids, np.int64), self.pixels([tiles]))

    def pixels(self, tiles: Sequence[np.ndarray]) -> np.ndarray:
        """Tiles of many examples as one normalised (tiles, 3, size, size) float32."""
        if self.images is None:
            return np.zeros((0, 3, 0, 0), np.float32)
        return self.images.normalise(np.concatenate(tiles))

    @cached_property
    def fingerprint(self) -> str:
        """Changes with whatever changes the number of tokens of a sample."""
        images = self.images and (self.images.size, self.images.max_tiles, self.images.thumbnail)
        settings = [asdict(self.template), images, self.tokens_per_tile, self.tokenizer.to_str()]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]

    def _lay(self, sample: Sample, max_length: int) -> _Tokens | None:
        tokens = _Tokens()
        if not sample.exchanges:
            return self._lay_document(tokens, sample, max_length)
        prefix = self._prefix(sample.text, _sizes(sample), sample.id)
        tokens.add(prefix, 0, 0, False)
        for number, exchange in enumerate(sample.exchanges, 1):
            asked, answered = self._exchange(exchange)
            follows = sample.dialogue and number > 1
            if follows:
                asked = self._between + asked
            if len(tokens.ids) + len(asked) + len(answered) > max_length:
                tokens.dropped += 1
                if sample.dialogue:
                    tokens.dropped = len(sample.exchanges) - number + 1
                    break
                continue
            start = len(tokens.ids) if follows else len(prefix)
            branch = 1 if sample.dialogue else number
            tokens.add(asked, start, branch, False)
            tokens.add(answered, start + len(asked), branch, True)
        return tokens if tokens.dropped < len(sample.exchanges) else None

    def _lay_document(self, tokens: _Tokens, sample: Sample, max_length: int) -> _Tokens | None:
        if sample.images:
            raise DataError(f"{sample.id}: images without a question or caption")
        ids = self._words(sample.text.strip()) + self._answer_close
        tokens.add(ids[:1], 0, 0, False)
        tokens.add(ids[1:max_length], 1, 0, True)
        tokens.dropped = int(len(ids) > max_length)
        return tokens if len(tokens.ids) > 1 else None

    def _prefix(self, text: str, sizes: Sequence[tuple[int, int]], name: str) -> list[int]:
        ids = list(self._turn_open)
        for width, height in sizes:
            if self.images is None or self.image_tokens is None:
                raise DataError(f"{name} has an image, but the model takes text only")
            count = self.images.tile_count(width, height, len(sizes)) * self.tokens_per_tile
            ids.append(self.image_tokens.start)
            ids += [self.image_tokens.context] * count
            ids += [self.image_tokens.end, *self._newline]
        if text.strip():
            ids += self._words(text.strip() + "\n")
        return ids

    def _exchange(self, exchange: Exchange) -> tuple[list[int], list[int]]:
        answer = self.template.answer.format(answer=exchange.answer.strip())
        return self._asked(exchange.question), self._words(answer) + self._answer_close

    def _asked(self, question: str) -> list[int]:
        words = self._words(self.template.question.format(question=question.strip()))
        return words + self._question_close

    def _tiles(self, images: Sequence[bytes | Image.Image], name: str) -> np.ndarray:
        if self.images is None:
            return np.zeros((0, 0, 0, 3), np.uint8)
        return self.images.stack(images, name)

    def _markup(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _words(self, text: str) -> list[int]:
        # Set at each call: the flag is lost when the tokenizer is pickled to a worker.
        self._literal.encode_special_tokens = True
        return list(self._literal.encode(text, add_special_tokens=False).ids)


def _sizes(sample: Sample) -> Sequence[tuple[int, int]]:
    return sample.sizes or [decode(image, sample.id).size for image in sample.images]
