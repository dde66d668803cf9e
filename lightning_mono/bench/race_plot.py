"""A benchmark of models as a picture: a panel a number of rows, and one of peak memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_mono.bench.names import OURS, PLAIN, REFERENCE, TRANSFORMERS, TWIN
from lightning_mono.bench.plot import INK
from lightning_mono.bench.race import Measured, Report, Result
from lightning_mono.bench.race_table import GIB, race_heading

COLOURS = {
    OURS: "#d55e00",
    PLAIN: "#e69f00",
    REFERENCE: "#0072b2",
    TWIN: "#009e73",
    TRANSFORMERS: "#cc79a7",
}
"""Of Okabe and Ito, told apart with any colour vision."""

WEIGHTS = "#c6ccd3"


def race_plot(report: Report, path: Path) -> None:
    """Writes a PNG."""
    batches = list(dict.fromkeys(case.prompt.batch for case in report.cases))
    groups = [[case for case in report.cases if case.prompt.batch == rows] for rows in batches]
    weighed = next((case for case in report.cases if any(r.peak for r in case.results)), None)
    widths = [max(1.5 * len(cases), 3.0) for cases in groups] + [2.2] * (weighed is not None)
    figure = Figure(figsize=(max(sum(widths) + 1.2, 7.5), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
    for panel, cases in zip(panels, groups, strict=False):
        _bars(panel, cases, rate=report.rate)
    panels[0].set_ylabel("tokens a second" if report.rate else "seconds", fontsize=8)
    if weighed is not None:
        _memory(panels[-1], weighed)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.suptitle(f"{report.title}\n{race_heading(report)}", fontsize=8, color=INK)
    figure.savefig(path, dpi=150)


def _bars(panel: Axes, cases: Sequence[Measured], *, rate: bool) -> None:
    """A group of bars a prompt; what the machine allows at best are lines across ours."""

    def height(result: Result) -> float:
        return result.tokens_per_s if rate else result.seconds

    names = [result.contestant for result in cases[0].results]
    width = 0.84 / len(names)
    for at, name in enumerate(names):
        places = [number - 0.42 + width * (at + 0.5) for number in range(len(cases))]
        heights = [height(case.results[at]) for case in cases]
        bars = panel.bar(places, heights, width * 0.92, color=COLOURS[name], label=name)
        panel.bar_label(bars, [_short(value) for value in heights], fontsize=6.5, color=INK)
    for floor, style in zip(cases[0].floors, ("-", ":"), strict=False):
        for number, case in enumerate(cases):
            tokens = case.results[0].tokens_per_s * case.results[0].seconds
            panel.hlines(
                tokens / case.floors[floor] if rate else case.floors[floor],
                number - 0.44,
                number - 0.4 + width * sum(not name.startswith(TWIN) for name in names),
                color=INK,
                linestyle=style,
                linewidth=1.2,
                label=f"{'at most' if rate else 'at least'}: {floor}" if number == 0 else "",
            )
    labels = [f"{case.prompt.tokens:,} tokens\n{case.prompt.visual:,} visual" for case in cases]
    panel.set_xticks(range(len(cases)), labels)
    panel.set_title(_rows(cases[0]), fontsize=8, color=INK)
    _plain(panel)


def _memory(panel: Axes, case: Measured) -> None:
    """What the weights take, and what comes on top."""
    for at, result in enumerate(r for r in case.results if r.peak is not None):
        assert result.peak is not None
        weights, beside = result.peak.weights / GIB, result.peak.beside / GIB
        panel.bar(at, weights, 0.8, color=WEIGHTS)
        bars = panel.bar(at, beside, 0.8, bottom=weights, color=COLOURS[result.contestant])
        panel.bar_label(bars, [_short(beside)], fontsize=6.5, color=INK)
    panel.set_xticks([])
    panel.set_title(f"{case.prompt.tokens:,} tokens, {_rows(case)}", fontsize=8, color=INK)
    panel.set_xlabel("grey: weights", fontsize=8)
    panel.set_ylabel("peak memory, GiB", fontsize=8)
    _plain(panel)


def _rows(case: Measured) -> str:
    return "1 row" if case.prompt.batch == 1 else f"{case.prompt.batch} rows"


def _short(value: float) -> str:
    """Three digits: 0.00123, 4.56, 789, 12,345."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _plain(panel: Axes) -> None:
    panel.grid(axis="y", color="#dfe3e8", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(length=0, labelsize=8)
