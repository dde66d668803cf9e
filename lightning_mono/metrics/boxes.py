"""Grounding (RefCOCO): boxes that overlap the right one by half."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lightning_mono.metrics.answers import AnswerMetric

Box = tuple[float, float, float, float]  # left, top, right, bottom

_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_BOX = re.compile(rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]")


@dataclass(frozen=True)
class BoxQuestion:
    """What to find, and where it is, in pixels of an image of `width` by `height`."""

    box: Box
    width: float
    height: float
    kind: str = ""


def read_box(prediction: str, width: float, height: float) -> Box | None:
    """Read the first `[left, top, right, bottom]` of a text, in pixels; None: there is none.

    As InternVL's `evaluate_grounding.py`: thousandths of the image's sides, or, where the four
    add up to less than 4, the shares themselves.
    """
    match = _BOX.search(prediction)
    if match is None:
        return None
    left, top, right, bottom = (float(number) for number in match.groups())
    scale = 1000 if left + top + right + bottom >= 4 else 1
    return (
        left / scale * width,
        top / scale * height,
        right / scale * width,
        bottom / scale * height,
    )


def overlap(one: Box, other: Box) -> float:
    """Return the area of the intersection over that of the union, between 0 and 1.

    A box whose sides are the wrong way round has no area.
    """
    meet = (
        max(one[0], other[0]),
        max(one[1], other[1]),
        min(one[2], other[2]),
        min(one[3], other[3]),
    )
    both = _area(meet)
    union = _area(one) + _area(other) - both
    return both / union if union else 0.0


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


class BoxAccuracy(AnswerMetric[BoxQuestion]):
    """Share of boxes with an IoU of 0.5 or more (`accuracy`), and the mean `iou`, by kind too."""

    columns = ("accuracy", "iou")

    def check(self, question: BoxQuestion) -> None:
        """Refuse a right box without area: nothing overlaps it."""
        if not _area(question.box):
            raise ValueError(
                f"its box {question.box} has no area; boxes are left, top, right, bottom"
            )

    def measure(self, prediction: str, question: BoxQuestion) -> tuple[float, ...]:
        """Return whether the overlap is at least a half, and the overlap."""
        box = read_box(prediction, question.width, question.height)
        iou = 0.0 if box is None else overlap(box, question.box)
        return (float(iou >= 0.5), iou)
