"""A benchmark of models as a picture: times by prompt, with their floors, and peak memory."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_mono.bench.plot import COLOURS, INK
from lightning_mono.bench.race import Measured, Report
from lightning_mono.bench.race_table import GIB, race_heading


def race_plot(report: Report, path: Path) -> None:
    """Writes a PNG."""
    last = [case for case in report.cases if any(result.peak for result in case.results)]
    columns = 1 + bool(last)
    widths = [max(2.0, 1.1 * len(report.cases)), 1.6][:columns]
    figure = Figure(figsize=(1.6 + 2.6 * sum(widths), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, columns, squeeze=False, width_ratios=widths)[0]
    _times(panels[0], report)
    for case in last:
        _memory(panels[1], case, report)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.suptitle(f"{report.title}\n{race_heading(report)}", fontsize=9, color=INK)
    figure.savefig(path, dpi=150)


def _times(panel: Axes, report: Report) -> None:
    """Groups of bars, a group a prompt; the floors are lines across it."""
    names = [result.contestant for result in report.cases[0].results]
    width = 0.8 / len(names)
    for at, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        places = [case - 0.4 + width * (at + 0.5) for case in range(len(report.cases))]
        heights = [case.results[at].seconds for case in report.cases]
        bars = panel.bar(places, heights, width * 0.92, color=colour, label=name)
        panel.bar_label(bars, [f"{height:.3g}" for height in heights], fontsize=7, color=INK)
    for floor, style in zip(report.cases[0].floors, ("-", ":"), strict=False):
        for number, case in enumerate(report.cases):
            panel.hlines(
                case.floors[floor],
                number - 0.42,
                number + 0.42,
                color=INK,
                linestyle=style,
                linewidth=1.2,
                label=f"floor: {floor}" if number == 0 else None,
            )
    panel.set_xticks(range(len(report.cases)), [_label(case) for case in report.cases])
    panel.set_ylabel(f"{report.title}, {report.unit}")
    _plain(panel)


def _memory(panel: Axes, case: Measured, report: Report) -> None:
    """Bars of what the weights take, grey, and of what comes on top."""
    results = [result for result in case.results if result.peak is not None]
    for at, result in enumerate(results):
        assert result.peak is not None
        weights, beside = result.peak.weights / GIB, result.peak.beside / GIB
        panel.bar(at, weights, 0.8, color="#c6ccd3")
        colour = COLOURS[[r.contestant for r in case.results].index(result.contestant)]
        bars = panel.bar(at, beside, 0.8, bottom=weights, color=colour)
        panel.bar_label(bars, [f"{beside:.2f}"], fontsize=7, color=INK)
    panel.set_xticks([])
    panel.set_xlabel(f"{_label(case).replace(chr(10), ', ')}\ngrey: weights", fontsize=8)
    panel.set_ylabel("peak memory, GiB")
    _plain(panel)


def _label(case: Measured) -> str:
    prompt = case.prompt
    rows = f"{prompt.batch} rows" if prompt.batch > 1 else "1 row"
    return f"{prompt.tokens:,} tokens\n{prompt.visual:,} visual, {rows}"


def _plain(panel: Axes) -> None:
    panel.grid(axis="y", color="#dfe3e8", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(length=0, labelsize=8)
