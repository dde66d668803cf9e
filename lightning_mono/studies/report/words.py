"""A study's figures and findings in words. Every number comes from the results."""

from __future__ import annotations

from lightning_mono.evaluation.report.words import MINUS, count, listing
from lightning_mono.studies.results import ArmResults, StudyResults
from lightning_mono.studies.schema import MeasureSection
from lightning_mono.studies.statistics import Difference, Interval

NONE = "\u2014"


def value(number: float, measure: MeasureSection, *, signed: bool = False) -> str:
    """Write a figure: shares in percent with one digit, numbers with three that count."""
    if measure.form == "percent":
        text = f"{100 * number:{'+' if signed else ''}.1f}"
    else:
        text = f"{number:{'+' if signed else ''}.3g}"
    return text.replace("-", MINUS)


def mean(found: Interval | None, measure: MeasureSection) -> str:
    """Write a mean with half of its interval: "74.1 ± 2.3"."""
    if found is None:
        return NONE
    half = "" if found.half is None else f" \u00b1 {value(found.half, measure)}"
    return f"{value(found.mean, measure)}{half}"


def difference(found: Difference | None, measure: MeasureSection) -> str:
    """Write a difference with half of its interval: "+1.2 ± 0.8"."""
    if found is None:
        return NONE
    inner = found.interval
    half = "" if inner.half is None else f" \u00b1 {value(inner.half, measure)}"
    return f"{value(inner.mean, measure, signed=True)}{half}"


def p_value(found: Difference | None) -> str:
    """Write a corrected p-value; a star where it is below 0.05."""
    if found is None or found.adjusted is None:
        return NONE
    text = "<0.001" if found.adjusted < 0.001 else f"{found.adjusted:.3f}"
    return f"{text}{'*' if found.significant else ''}"


def unit(measure: MeasureSection) -> str:
    return "%" if measure.form == "percent" else ""


def findings(results: StudyResults) -> str:
    """What the study found, in two or three sentences."""
    name = results.headline
    measure = results.measures[name]
    done = [arm for arm in results.arms if name in arm.means]
    sign = 1 if measure.better == "higher" else -1
    best = max(done, key=lambda arm: sign * arm.means[name].mean)
    base = results.baseline
    percent = f"\u202f{unit(measure)}".rstrip("\u202f")
    said = [
        f"Of {len(results.arms)} arms, \u201c{best.arm.name}\u201d comes out "
        f"{'highest' if sign > 0 else 'lowest'} in {name}: "
        f"{mean(best.means[name], measure)}{percent}."
    ]
    if best is not base and name in base.means:
        said.append(
            f"The baseline, \u201c{base.arm.name}\u201d, is at "
            f"{mean(base.means[name], measure)}{percent}."
        )
    return " ".join([*said, _significant(results, done)])


def _significant(results: StudyResults, done: list[ArmResults]) -> str:
    name = results.headline
    measure = results.measures[name]
    tested = {arm.arm.name: d for arm in done if (d := arm.differences[name]) is not None}
    if all(found.p is None for found in tested.values()):
        return "With a single seed nothing can be said of chance."
    sure = [
        f"\u201c{arm}\u201d ({value(found.interval.mean, measure, signed=True)})"
        for arm, found in tested.items()
        if found.significant
    ]
    seeds = count(max(len(arm.seeds) for arm in results.arms))
    if not sure:
        return (
            f"No arm differs from the baseline by more than chance would over {seeds} seeds "
            "(paired t-tests, corrected after Holm, 5\u202f%)."
        )
    return (
        f"From the baseline {'differs' if len(sure) == 1 else 'differ'}, beyond chance over "
        f"{seeds} seeds (paired t-tests, corrected after Holm, 5\u202f%): {listing(sure)}."
    )
