"""The two averages of the Mono-InternVL paper's Table 2, over benchmarks with unlike full marks."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_mono.metrics.answers import mean

_PER_CENT = 100.0

MULTIMODAL = {
    "mmbench": _PER_CENT,
    "mmvet": _PER_CENT,
    "mmmu": _PER_CENT,
    "mme": 2800.0,
    "mathvista": _PER_CENT,
    "seed": _PER_CENT,
    "ocrbench": 1000.0,
    "hallusionbench": _PER_CENT,
    "ccbench": _PER_CENT,
}
"""Full marks of the benchmarks of Avg-MM."""

QUESTIONS = dict.fromkeys(
    ("textvqa", "scienceqa", "gqa", "docvqa", "ai2d", "chartqa", "infovqa"), _PER_CENT
)
"""Full marks of the benchmarks of Avg-VQA."""


def average(scores: Mapping[str, float], full_marks: Mapping[str, float]) -> float:
    """Return the mean of scores as percentages of their full marks.

    Args:
        scores: as papers print them (per cent; points of MME and OCRBench). Others than those in
            `full_marks` are left aside.
        full_marks: `MULTIMODAL` for Avg-MM, `QUESTIONS` for Avg-VQA.

    Raises:
        ValueError: a score is missing, or is outside of its full marks.

    >>> round(average({"mme": 1400, "ocrbench": 700}, {"mme": 2800, "ocrbench": 1000}), 1)
    60.0
    """
    missing = [name for name in full_marks if name not in scores]
    if missing:
        raise ValueError(f"the average needs a score of {', '.join(missing)}, too")
    for name, full in full_marks.items():
        if not 0 <= scores[name] <= full:
            raise ValueError(
                f"{name}: {scores[name]} is not between 0 and its full marks of {full:g}"
            )
    return mean([100 * scores[name] / full for name, full in full_marks.items()])
