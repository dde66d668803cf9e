"""Chooses the test pictures to show. Only `mistakes` looks at what was right or wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lightning_mono.evaluation.benchmark import Prediction
from lightning_mono.evaluation.report.svg import Picture, picture

T = TypeVar("T")


@dataclass(frozen=True)
class Card:
    """A picture and some of the questions about it."""

    picture: Picture
    predictions: list[Prediction]


def sample(
    predictions: Sequence[Prediction], images: Mapping[str, bytes], cards: int, questions: int
) -> list[Card]:
    """Take pictures at even distances through the test set, with questions of different kinds."""
    by_image: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        if prediction.image in images:
            by_image.setdefault(prediction.image, []).append(prediction)
    return [
        Card(picture(images[name], name), _varied(by_image[name], questions))
        for name in spread(list(by_image), cards)
    ]


def mistakes(
    predictions: Sequence[Prediction], images: Mapping[str, bytes], cards: int
) -> list[Card]:
    """Take wrong answers at even distances through the test set, one a picture."""
    wrong = {p.image: p for p in predictions if not p.correct and p.image in images}
    return [
        Card(picture(images[p.image], p.image), [p]) for p in spread(list(wrong.values()), cards)
    ]


def spread(items: Sequence[T], count: int) -> list[T]:
    """Take `count` items at even distances; all, where there are no more."""
    if len(items) <= count:
        return list(items)
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


def _varied(predictions: Sequence[Prediction], count: int) -> list[Prediction]:
    """Prefer one question of each kind, then others, in the order in which they were asked."""
    first = {p.kind: p for p in reversed(predictions)}.values()
    rest = [p for p in predictions if p not in first]
    taken = [*sorted(first, key=predictions.index), *rest][:count]
    return sorted(taken, key=predictions.index)
