"""What a few seeds allow to say: intervals, paired differences, and when they mean something.

Seeds are few, so the normal distribution would promise too much: all rests on Student's t with one
degree of freedom less than there are seeds. An arm is compared with the baseline seed by seed: the
same seed means the same order of samples, and the same initial weights where both have them, so
what a seed does to both cancels. Nothing is assumed of how arms' spreads compare. Several arms are
compared with one baseline, so the tests are corrected (Holm 1979): where all differences are zero,
one study in twenty has a test that says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import t as student

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds.

    Attributes:
        mean: of the values.
        half: half of the 95 % interval's width; None where one seed leaves it unknown.
        count: of seeds.
    """

    mean: float
    half: float | None
    count: int


@dataclass(frozen=True)
class Difference:
    """An arm less the baseline.

    Attributes:
        interval: of the differences by seed.
        p: of a paired t-test, two-sided; None where one seed leaves it unknown.
        adjusted: the same after Holm's correction over all arms.
    """

    interval: Interval
    p: float | None
    adjusted: float | None

    @property
    def significant(self) -> bool:
        return self.adjusted is not None and self.adjusted < 1 - LEVEL


def interval(values: Sequence[float]) -> Interval:
    """The mean of some values, and a 95 % interval for what more seeds would give."""
    count = len(values)
    if count < 2:
        return Interval(fmean(values), None, count)
    half = float(student.ppf((1 + LEVEL) / 2, count - 1)) * stdev(values) / math.sqrt(count)
    return Interval(fmean(values), half, count)


def differences(
    arms: Mapping[str, Mapping[int, float]], baseline: str
) -> dict[str, Difference | None]:
    """Each arm less the baseline, over the seeds that both have; None where there is none.

    Args:
        arms: arm -> seed -> value.
        baseline: one of the arms; it has no difference.
    """
    base = arms[baseline]
    pairs = {
        name: [value - base[seed] for seed, value in values.items() if seed in base]
        for name, values in arms.items()
        if name != baseline
    }
    tested = {name: p for name, pair in pairs.items() if (p := _paired(pair)) is not None}
    adjusted = holm(tested)
    return {
        name: Difference(interval(pair), tested.get(name), adjusted.get(name)) if pair else None
        for name, pair in pairs.items()
    }


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values: below 0.05 are those that his procedure rejects at 0.05."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(values, key=lambda name: values[name])):
        highest = max(highest, min(1.0, (len(values) - rank) * values[name]))
        adjusted[name] = highest
    return adjusted


def _paired(pair: Sequence[float]) -> float | None:
    """The two-sided p-value of mean zero."""
    if len(pair) < 2:
        return None
    spread = stdev(pair)
    if spread == 0:
        return 1.0 if fmean(pair) == 0 else 0.0
    score = fmean(pair) / (spread / math.sqrt(len(pair)))
    return float(2 * student.sf(abs(score), len(pair) - 1))
