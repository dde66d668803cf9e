"""A benchmark: items to ask, what they are asked with, and how the answers are scored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from lightning_mono.benchmarks.pictures import Picture
from lightning_mono.benchmarks.prompts import Prompt, Words
from lightning_mono.metrics import METRICS, Scoring
from lightning_mono.metrics.answers import HasKind
from lightning_mono.metrics.choices import Choice
from lightning_mono.metrics.hallusion import HallusionQuestion
from lightning_mono.metrics.mme import YesNo


@dataclass(frozen=True)
class Item:
    """One question of a benchmark.

    Attributes:
        id: unique in the benchmark.
        words: what is asked, before a template makes a prompt of it.
        question: what the metric needs to know, of the type that the scoring names.
        images: in the order in which they are shown.
        answer: the right answer, as people are shown it.
    """

    id: str
    words: Words
    question: HasKind
    images: tuple[Picture, ...] = ()
    answer: str = ""


@dataclass(frozen=True)
class Benchmark:
    """Items with what they are asked with.

    Attributes:
        name: what tables call it.
        scored_as: a name in `METRICS`.
        items: all of them, in the order of where they came from.
        prompt: how they are asked.
        origin: the file or source that they came from.
        notes: what of it was left out, and why; one sentence each.
        part_of: how many items there are in all, where these are only the first.
    """

    name: str
    scored_as: str
    items: tuple[Item, ...]
    prompt: Prompt
    origin: str
    notes: tuple[str, ...] = ()
    part_of: int | None = None

    @property
    def scoring(self) -> Scoring:
        return METRICS[self.scored_as]

    def ask(self, item: Item) -> str:
        """Return the prompt of an item."""
        return self.prompt.fill(item.words)

    def first(self, count: int) -> Benchmark:
        """Return the first `count` items, and the others of the groups that these begin.

        What is only right together (rotations of a question, the two questions of an image of MME,
        the questions of a figure) stays together.
        """
        begun = {_together(item.question) for item in self.items[:count]} - {()}
        kept = [
            item
            for number, item in enumerate(self.items)
            if number < count or _together(item.question) in begun
        ]
        if len(kept) == len(self.items):
            return self
        return replace(self, items=tuple(kept), part_of=self.part_of or len(self.items))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that an answer and its score depend on, images included."""
        whole = hashlib.sha256(json.dumps([self.scored_as, asdict(self.prompt)]).encode())
        for item in self.items:
            whole.update(_fingerprint(item).encode())
        return whole.hexdigest()


def _together(question: Any) -> tuple[str, ...]:
    """What the questions that are scored together have in common; nothing: scored alone."""
    if isinstance(question, Choice):
        return (question.group,) if question.group else ()
    if isinstance(question, YesNo):
        return (question.kind, question.image)
    if isinstance(question, HallusionQuestion):
        return (question.category, question.subcategory, question.set_id)
    return ()


def _fingerprint(item: Item) -> str:
    images = [hashlib.sha256(picture.read()).hexdigest() for picture in item.images]
    words = [item.words.question, item.words.hint, dict(item.words.options)]
    return json.dumps([item.id, words, images, _plain(vars(item.question))])


def _plain(value: Any) -> Any:
    """Turn what a question holds into JSON."""
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return value


def repeated(ids: Iterable[str]) -> dict[str, list[int]]:
    """Return the ids that come more than once, with the places where they do, from 0 on."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(ids):
        places.setdefault(name, []).append(place)
    return {name: where for name, where in places.items() if len(where) > 1}
