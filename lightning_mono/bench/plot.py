"""A benchmark's report as a picture: a column a sweep, time over the limit and roofline reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lightning_mono.bench.cases import Case
from lightning_mono.bench.contestants import LIMIT
from lightning_mono.bench.kernels import Measured, Report, Result
from lightning_mono.bench.table import heading

COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Of Okabe and Ito, told apart with any colour vision; kernels take them in order."""

MARKERS = "osD^vP"
INK = "#1f2328"


class Axis(NamedTuple):
    """A way in which cases differ."""

    title: str
    value: Callable[[Case], object]
    label: Callable[[Case], str]


AXES = (
    Axis("tokens", lambda c: c.tokens, lambda c: f"{c.tokens:,}"),
    Axis("share of visual tokens", lambda c: c.share, lambda c: f"{c.share:.0%}"),
    Axis("length of a visual run", lambda c: c.run, lambda c: f"{c.run:,}"),
    Axis("FFN", lambda c: (c.shape.hidden, c.shape.ffn), lambda c: c.shape.name),
)


def plot(report: Report, path: Path) -> None:
    """Writes a PNG; a sweep of one value gets no column, unless there is no other."""
    swept = [(axis, cases) for axis in AXES if len(cases := along(report, axis)) > 1]
    swept = swept or [(AXES[-1], report.cases)]
    figure = Figure(figsize=(1.2 + 3.2 * len(swept), 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(swept), sharey="row", squeeze=False)
    for (axis, cases), (above, below) in zip(swept, panels.T, strict=True):
        _lines(above, cases, lambda result: result.both_to_limit)
        _lines(below, cases, lambda result: result.both_roofline)
        below.set_xticks(range(len(cases)), [axis.label(m.case) for m in cases])
        below.set_xlabel(axis.title)
        above.set_xticks(range(len(cases)), [""] * len(cases))
    panels[0, 0].set_ylabel("time / bare matrix products")
    panels[0, 0].set_ylim(bottom=0)
    panels[1, 0].set_ylabel("roofline reached")
    panels[1, 0].set_ylim(0, 1)
    panels[1, 0].yaxis.set_major_formatter(PercentFormatter(1))
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    base = report.cases[0].case
    figure.suptitle(
        "FFN of two modalities, forward and backward, text weights frozen\n"
        f"{base.shape.name}, {base.tokens:,} tokens, {base.share:.0%} visual in runs of {base.run}"
        f", where not varied\n{heading(report)}",
        fontsize=9,
        color=INK,
    )
    figure.savefig(path, dpi=150)


def along(report: Report, axis: Axis) -> list[Measured]:
    """The cases that differ from the first in this way alone, and the first; ascending."""
    base = report.cases[0].case
    others = [other for other in AXES if other is not axis]
    cases = [
        measured
        for measured in report.cases
        if all(other.value(measured.case) == other.value(base) for other in others)
    ]
    return sorted(cases, key=lambda measured: axis.value(measured.case))  # type: ignore[arg-type,return-value]


def _lines(panel: Axes, cases: Sequence[Measured], value: Callable[[Result], float]) -> None:
    """One line a kernel over the cases; the limit is a line in grey."""
    names = [result.kernel for result in cases[0].results]
    kernels = [name for name in names if name != LIMIT]
    styles: dict[str, dict[str, Any]] = {
        name: {"color": colour, "marker": marker}
        for name, colour, marker in zip(kernels, COLOURS, MARKERS, strict=False)
    }
    styles[LIMIT] = {"color": "#7a828e", "linestyle": "--"}
    for at, name in enumerate(names):
        heights = [value(measured.results[at]) for measured in cases]
        panel.plot(range(len(cases)), heights, label=name, clip_on=False, **styles[name])
    panel.set_xlim(-0.3, len(cases) - 0.7)
    panel.grid(axis="y", color="#dfe3e8", linewidth=0.8)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(length=0, labelsize=9)
