"""A study as a table: for the terminal, and as CSV for whatever reads that."""

from __future__ import annotations

import csv
import io
from typing import Any

from lightning_mono.evaluation.report.words import count, duration
from lightning_mono.studies.report.words import difference, mean, p_value, unit
from lightning_mono.studies.results import StudyResults


def table(results: StudyResults) -> str:
    """The arms with their means and intervals, the headline's difference, and what they cost."""
    head = ["arm", "seeds"]
    for name, measure in results.measures.items():
        head.append(f"{name} {unit(measure)}".strip())
    head += [f"{results.headline} \u2212 baseline", "p", "trainable", "FLOPs", "seconds"]
    rows = [head]
    for arm in results.arms:
        star = " (baseline)" if arm is results.baseline else ""
        less = arm.differences[results.headline]
        cost = arm.cost
        rows.append(
            [
                f"{arm.arm.name}{star}",
                str(len(arm.seeds)),
                *(mean(arm.means.get(name), m) for name, m in results.measures.items()),
                difference(less, results.measures[results.headline]),
                p_value(less),
                *(
                    (count(cost.trainable), f"{cost.flops:.2e}", duration(cost.seconds))
                    if cost
                    else ("\u2014",) * 3
                ),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = []
    for row in rows:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join([row[0].ljust(len(first)), *others]).rstrip())
    lines += [
        f"{label} ({name}): {100 * value:.1f} %"
        if results.measures[name].form == "percent"
        else f"{label} ({name}): {value:.4g}"
        for name, found in results.references.items()
        for label, value in found.items()
    ]
    return "\n".join(lines)


def arms_csv(results: StudyResults) -> str:
    """A line an arm: means, intervals, differences, tests and costs, without rounding."""
    lines: list[dict[str, Any]] = []
    for arm in results.arms:
        line: dict[str, Any] = {"arm": arm.arm.name, "seeds": len(arm.seeds)}
        for name in results.measures:
            found, less = arm.means.get(name), arm.differences[name]
            line[f"{name}"] = found and found.mean
            line[f"{name}_half_interval"] = found and found.half
            line[f"{name}_difference"] = less and less.interval.mean
            line[f"{name}_difference_half_interval"] = less and less.interval.half
            line[f"{name}_p"] = less and less.p
            line[f"{name}_p_holm"] = less and less.adjusted
        lines.append({**line, **_costs(arm.cost)})
    return _written(lines)


def runs_csv(results: StudyResults) -> str:
    """A line a run: what it measured, and where it lies."""
    lines = []
    for cell in results.cells:
        arm = next(found for found in results.arms if found.arm.name == cell.arm.name)
        line: dict[str, Any] = {"arm": cell.arm.name, "seed": cell.seed}
        line |= {name: arm.values[name].get(cell.seed) for name in results.measures}
        lines.append({**line, "run": cell.recipe.out, "failure": arm.failures.get(cell.seed)})
    return _written(lines)


def _costs(cost: object) -> dict[str, Any]:
    names = ("parameters", "trainable", "flops", "memory", "tokens", "seconds")
    return {name: getattr(cost, name, None) for name in names}


def _written(lines: list[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()
