"""Writes a study's folder: report.html, which needs nothing else, a picture, CSV and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from omegaconf import OmegaConf

from lightning_mono.checkpoints.atomic import replacing
from lightning_mono.evaluation.report.pages import WIDE, chart, environment
from lightning_mono.studies.report import words
from lightning_mono.studies.report.figures import arms_figure, cost_figure
from lightning_mono.studies.report.table import arms_csv, runs_csv
from lightning_mono.studies.results import StudyResults
from lightning_mono.style import house_style

PAPER = 9.5
"""Inches of a chart for a document."""

PANELS = 3
"""Measures that the first chart shows, at most."""


def write_report(results: StudyResults, folder: Path) -> Path:
    """Writes report.html, study.png, arms.csv, runs.csv and results.json.

    Returns:
        The path of the page.
    """
    panels = list(results.measures)[:PANELS]
    with house_style():
        figure = arms_figure(results, PAPER, panels)
        FigureCanvasAgg(figure)
        with replacing(folder / "study.png") as temporary:
            figure.savefig(temporary, format="png", dpi=150, facecolor="white")
    texts = {
        "arms.csv": arms_csv(results),
        "runs.csv": runs_csv(results),
        "results.json": json.dumps(plain(results), indent=2) + "\n",
        "report.html": _page(results, panels),
    }
    for name, text in texts.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder / "report.html"


def plain(results: StudyResults) -> dict[str, Any]:
    """All results as plain data, without rounding."""
    section = results.study.section
    return {
        "name": section.name,
        "question": section.question,
        "command": results.study.command,
        "base": section.base,
        "baseline": section.baseline,
        "measures": {name: asdict(measure) for name, measure in results.measures.items()},
        "references": results.references,
        "arms": [
            {
                "name": arm.arm.name,
                "changes": dict(arm.arm.changes),
                "values": arm.values,
                "means": {name: asdict(mean) for name, mean in arm.means.items()},
                "differences": {n: d and asdict(d) for n, d in arm.differences.items()},
                "cost": arm.cost and asdict(arm.cost),
                "failures": dict(arm.failures),
            }
            for arm in results.arms
        ],
        "runs": [{"name": str(cell), "folder": cell.recipe.out} for cell in results.cells],
    }


def _page(results: StudyResults, panels: list[str]) -> str:
    section = results.study.section
    headline = results.headline
    arms = chart(
        "arms",
        f"{headline} of each arm with its interval; the table below holds the numbers.",
        lambda width: arms_figure(results, width, panels if width == WIDE else panels[:1]),
    )
    costs = chart(
        "costs",
        f"{headline} against the parameters that learn.",
        lambda width: cost_figure(results, width),
    )
    seconds = sum(arm.cost.seconds * len(arm.seeds) for arm in results.arms if arm.cost)
    pages = environment(Path(__file__).parent)
    shown = (words.value, words.mean, words.difference, words.p_value, words.unit)
    pages.filters.update({f.__name__: f for f in shown})
    return pages.get_template("study.html.j2").render(
        results=results,
        section=section,
        findings=words.findings(results),
        arms_chart=arms,
        cost_chart=costs,
        seconds=seconds,
        failures=[
            (arm.arm.name, seed, why) for arm in results.arms for seed, why in arm.failures.items()
        ],
        changes={arm.arm.name: _yaml(dict(arm.arm.changes)) for arm in results.arms},
        base=results.study.base.read_text(encoding="utf-8"),
        common=_yaml(section.set) if section.set else "",
    )


def _yaml(values: dict[str, Any]) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(values)).rstrip() if values else "(nothing)"
