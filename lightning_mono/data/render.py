"""Samples and conversations to tokens: what they show, in which branches, and what is learnt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

from lightning_mono.backbones.tokenizer import ImageTokens
from lightning_mono.data.example import Example, Prompt, Tokens
from lightning_mono.data.images import ImageProcessor, decode
from lightning_mono.data.sample import Exchange, Sample, Turn
from lightning_mono.data.templates import ChatTemplate
from lightning_mono.data.turns import Turns, share_out
from lightning_mono.data.words import Part, Script, Words
from lightning_mono.errors import DataError


class Renderer:
    """Turns samples into examples, and questions into prompts of the very same tokens.

    A sample is laid out as a prefix, which holds the images and the text, and one branch for each
    exchange; a branch sees the prefix and itself. Ten questions about one picture so cost one
    picture. The turns of a dialogue follow each other in one branch.

    Questions begin at a token boundary behind the prefix, and answers behind their question, so
    that the tokens of what comes first never depend on what follows.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        image_tokens: ImageTokens | None = None,
        images: ImageProcessor | None = None,
        tokens_per_tile: int = 0,
        *,
        system: str | None = None,
    ) -> None:
        """Prepares the pieces that are the same in every sample.

        Args:
            tokenizer: of the backbone, with the image tokens added.
            template: how turns are written.
            image_tokens: their ids; None for a model without eyes.
            images: how pictures are cut; None for a model without eyes.
            tokens_per_tile: visual tokens of a tile.
            system: the system message; None for the template's own, empty for none.

        Raises:
            DataError: the tokenizer lacks the token that opens a conversation or ends an answer.
        """
        self.tokenizer = tokenizer
        self.template = template
        self.image_tokens = image_tokens
        self.images = images
        self.tokens_per_tile = tokens_per_tile
        self.system = template.default_system if system is None else system
        self._turns = Turns(template, tokenizer, image_tokens, images, tokens_per_tile)
        self._words = Words(tokenizer)
        self.stop_ids = self._turns.stops
        self.answer_close_id = self._turns.close

    def example(self, sample: Sample, max_length: int) -> Example | None:
        """Renders a sample with its pixels.

        Args:
            sample: what to render.
            max_length: most tokens; exchanges that do not fit are dropped and counted.

        Returns:
            The example, or None when nothing supervised fits.

        Raises:
            DataError: an image cannot be read, or stands where it cannot.
        """
        tokens = self._lay(sample, max_length)
        if tokens is None:
            return None
        tiles = self._tiles(sample.images, sample.id)
        if self.image_tokens and len(tiles):  # less those of dropped turns
            tiles = tiles[: tokens.ids.count(self.image_tokens.context) // self.tokens_per_tile]
        return Example(
            id=sample.id,
            input_ids=np.array(tokens.ids, np.int64),
            positions=np.array(tokens.positions, np.int64),
            branches=np.array(tokens.branches, np.int32),
            supervised=np.array(tokens.supervised, bool),
            tiles=tiles,
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
        system: str | None = None,
    ) -> Prompt:
        """A question up to where the answer begins: :meth:`conversation` in short.

        Args:
            question: what is asked.
            images: pictures that open the first turn, or stand where ``<image>`` does.
            text: what the first turn is about, after the pictures.
            history: turns that came before, with their answers.
            system: the system message; None for the renderer's, empty for none.

        Raises:
            DataError: as :meth:`conversation`.
        """
        questions = [*(past.question for past in history), question]
        answers = [*(past.answer for past in history), None]
        shares = share_out(questions, images, "prompt")
        turns = [
            Turn(question, tuple(share), answer)
            for question, share, answer in zip(questions, shares, answers, strict=True)
        ]
        return self._conversation(turns, text, system)

    def conversation(self, turns: Sequence[Turn], *, system: str | None = None) -> Prompt:
        """A conversation up to where the answer to its last turn begins.

        The images of a turn share ``max_tiles`` among themselves, not with those of other turns:
        what has been read does not change by what comes later.

        Args:
            turns: with their answers, but for the last.
            system: the system message; None for the renderer's, empty for none.

        Raises:
            DataError: an image cannot be read, or the model takes none, or ``<image>`` is not
                there once for each of a turn's images.
            ValueError: a turn without an answer before the last, or with one at the end.
        """
        if [turn.answer is None for turn in turns] != [False] * (len(turns) - 1) + [True]:
            raise ValueError("every turn has an answer but the last")
        return self._conversation(turns, "", system)

    def follow_up(self, turn: Turn, *, closed: bool) -> Prompt:
        """The next turn of a conversation whose last answer has been said.

        Args:
            turn: what is asked next.
            closed: the token that ends the answer was said too.

        Raises:
            DataError: as :meth:`conversation`.
        """
        front, asked, tiles = self._turn(turn, "the next turn")
        script = Script(self._words, "behind a special token")
        script.write([*([] if closed else [self._turns.close]), *self._turns.between])
        script.write([*front, *asked])
        return Prompt(np.array(script.cut(), np.int64), self.pixels([tiles]))

    def pixels(self, tiles: Sequence[np.ndarray]) -> np.ndarray:
        """Tiles of many examples as one normalised (tiles, 3, size, size) float32."""
        if self.images is None:
            return np.zeros((0, 3, 0, 0), np.float32)
        return self.images.normalise(np.concatenate(tiles))

    @cached_property
    def fingerprint(self) -> str:
        """Changes with whatever changes the number of tokens of a sample."""
        template, images = asdict(self.template), repr(self.images)
        settings = [template, self.system, images, self.tokens_per_tile, self.tokenizer.to_str()]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]

    def within(self, images: ImageProcessor) -> Renderer:
        """The same renderer with another image budget."""
        return Renderer(
            self.tokenizer,
            self.template,
            self.image_tokens,
            images,
            self.tokens_per_tile,
            system=self.system,
        )

    def _conversation(self, turns: Sequence[Turn], text: str, system: str | None) -> Prompt:
        system = self.system if system is None else system
        script = Script(self._words)
        ids: list[int] = []
        tiles = []
        questions_at = []
        for number, turn in enumerate(turns, 1):
            front, asked, cut = self._turn(turn, f"turn {number}")
            tiles.append(cut)
            if number == 1:
                script.write(self._turns.opening(system, front, text))
                ids += script.cut()
            else:
                script.write([*self._turns.between, *front])
            questions_at.append(len(ids))
            script.write(asked)
            ids += script.cut()
            if turn.answer is not None:
                script.write(self._turns.answered(turn.answer))
                ids += script.cut()
        pixels = self.pixels(tiles)
        return Prompt(np.array(ids, np.int64), pixels, questions_at[-1], tuple(questions_at))

    def _turn(self, turn: Turn, name: str) -> tuple[list[Part], list[Part], np.ndarray]:
        """What stands in front of a turn's question, the question, and the tiles of both."""
        pictures = [decode(image, name) for image in turn.images]
        shown = self._turns.pictures([picture.size for picture in pictures], name)
        return *self._turns.asked(turn.question, shown, name), self._tiles(pictures, name)

    def _lay(self, sample: Sample, max_length: int) -> Tokens | None:
        tokens = Tokens()
        if not sample.exchanges:
            return self._lay_document(tokens, sample, max_length)
        questions = self._turns.of_sample(sample)
        script = Script(self._words)
        script.write(self._turns.opening(self.system, questions[0][0], sample.text))
        tokens.add(script.cut(), 0, 0, False)
        prefix = len(tokens.ids)
        for number, (front, asked) in enumerate(questions, 1):
            branch = script if sample.dialogue else script.fork()
            if sample.dialogue and number > 1:
                branch.write([*self._turns.between, *front])
            branch.write(asked)
            question = branch.cut()
            branch.write(self._turns.answered(sample.exchanges[number - 1].answer))
            answer = branch.cut()
            if len(tokens.ids) + len(question) + len(answer) > max_length:
                tokens.dropped += 1
                if sample.dialogue:
                    tokens.dropped = len(questions) - number + 1
                    break
                continue
            start = len(tokens.ids) if sample.dialogue else prefix
            tokens.add(question, start, 1 if sample.dialogue else number, False)
            tokens.add(answer, start + len(question), 1 if sample.dialogue else number, True)
        return tokens if tokens.dropped < len(questions) else None

    def _lay_document(self, tokens: Tokens, sample: Sample, max_length: int) -> Tokens | None:
        if sample.images:
            raise DataError(f"{sample.id}: images without a question or caption")
        script = Script(self._words)
        script.write([*self._turns.start, sample.text.strip(), self._turns.close])
        ids = script.cut()
        tokens.add(ids[:1], 0, 0, False)
        tokens.add(ids[1:max_length], 1, 0, True)
        tokens.dropped = int(len(ids) > max_length)
        return tokens if len(tokens.ids) > 1 else None

    def _tiles(self, images: Sequence[bytes | Image.Image], name: str) -> np.ndarray:
        if self.images is None:
            return np.zeros((0, 0, 0, 3), np.uint8)
        return self.images.stack(images, name)
