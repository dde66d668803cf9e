"""The report's charts, one function a chart.

Colours are those of Okabe and Ito, told apart with any colour vision. They stand for roles that the
page paints anew in dark mode (see `svg`), so a chart names colours by the constants of
`lightning_mono.style` only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from lightning_mono.evaluation.benchmark import KindScores, Scores
from lightning_mono.evaluation.report.run import Journal, Stage, Step
from lightning_mono.evaluation.report.words import count, duration, percent
from lightning_mono.style import BAND, BLIND, INK, MODEL, MUTED, USUAL, house_style

MOST_POINTS = 800  # of a curve; more cannot be told apart on a page


def loss_figure(journal: Journal, width: float) -> Figure:
    """Draw the loss and the learning rate over the steps, with the stages as bands.

    Args:
        journal: of the run; needs at least one step.
        width: inches.
    """
    steps, stages = journal.steps, journal.stages
    with house_style():
        figure = Figure(figsize=(width, 3.9), layout="constrained")
        loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=[5, 1])
        for curve in [journal.in_stage(stage) for stage in stages] or [steps]:
            _curve(loss, curve)
        rates = np.array([step.lr for step in steps])
        rate.plot([step.step for step in steps], rates, color=MUTED, linewidth=1.2)
        _loss_axis(loss)
        _rate_axis(rate, float(rates.max()))
        rate.set_xlim(steps[0].step - 1, steps[-1].step)
        for stage in stages[::2]:
            for axes in (loss, rate):
                axes.axvspan(stage.start, stage.end, color=BAND, linewidth=0, zorder=0)
        _last_value(loss, steps)
        _name_bands(figure, loss, stages)
        return figure


def accuracy_figure(test: Scores, width: float) -> Figure:
    """Draw accuracy overall and by kind of question, beside what needs no picture.

    Args:
        test: the scores.
        width: inches; below 5 the names stand above their bars.
    """
    kinds = sorted(test["by_kind"].items(), key=lambda pair: -pair[1]["questions"])
    rows: list[tuple[str, KindScores]] = [("All questions", test), *kinds]
    with house_style():
        figure = Figure(figsize=(width, 0.5 + 0.78 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for y, (kind, scores) in enumerate(rows):
            _accuracy_row(axes, y, scores)
            name = kind.replace("_", " ")
            asked = f"{scores['questions']:,} questions"
            if width < 5:
                axes.text(0, y - 0.36, name, va="bottom", weight="bold" if y == 0 else "normal")
                axes.text(1, y - 0.36, asked, va="bottom", ha="right", color=MUTED, size=9)
            else:
                axes.text(-0.02, y, name, ha="right", va="bottom", weight="bold" if not y else None)
                axes.text(-0.02, y + 0.06, asked, ha="right", va="top", color=MUTED, size=8.5)
        axes.set_xlim(0, 1.0)
        axes.set_ylim(len(rows) - 0.45, -0.75 if width < 5 else -0.5)
        axes.set_yticks([])
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100\u202f%"])
        axes.grid(axis="x", zorder=0)
        axes.set_axisbelow(True)
        return figure


def time_figure(journal: Journal, width: float) -> Figure:
    """Draw how long each part of the run took, with training cut into its stages.

    Args:
        journal: of the run; needs at least one part.
        width: inches.
    """
    parts = list(journal.parts.items())
    stages = [sum(step.seconds for step in journal.in_stage(stage)) for stage in journal.stages]
    longest = max(seconds for _, seconds in parts)
    with house_style():
        figure = Figure(figsize=(width, 0.25 + 0.42 * len(parts)), layout="constrained")
        axes = figure.subplots()
        for y, (name, seconds) in enumerate(parts):
            axes.barh(y, seconds, height=0.56, color=MODEL if name == "train" else USUAL)
            axes.annotate(
                duration(seconds), (seconds, y), (5, 0), textcoords="offset points", va="center"
            )
            if name == "train":
                for edge in np.cumsum(stages)[:-1]:
                    axes.plot([edge, edge], [y - 0.28, y + 0.28], color=BAND, linewidth=2)
        axes.set_yticks(range(len(parts)), [part_name(name) for name, _ in parts], color=INK)
        axes.set_ylim(len(parts) - 0.5, -0.5)
        axes.set_xlim(0, longest * (1.28 if width > 5 else 1.6))
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        return figure


def part_name(name: str) -> str:
    """Name a part of a run for a reader: "compare:question_only" is "compare: question only"."""
    return name.replace(":", ": ").replace("_", " ")


def _curve(axes: Axes, steps: Sequence[Step]) -> None:
    """Draw the loss of every step faintly and its running median over it."""
    xs = np.array([step.step for step in steps])
    ys = np.array([step.loss for step in steps])
    every = -(-len(xs) // MOST_POINTS) or 1
    half = max(len(xs) // 40, 2)
    middle = [np.median(ys[max(i - half, 0) : i + half + 1]) for i in range(0, len(xs), every)]
    axes.plot(xs[::every], ys[::every], color=MODEL, linewidth=0.8, alpha=0.3)
    axes.plot(xs[::every], middle, color=MODEL, linewidth=1.9, solid_capstyle="round")


def _loss_axis(axes: Axes) -> None:
    low, high = axes.dataLim.y0, axes.dataLim.y1
    if low > 0 and high > 4 * low:  # below that a logarithmic axis has too few ticks
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(axis="y")
    axes.tick_params(axis="x", length=0)
    axes.set_title("loss, nats a token", loc="left", size=9, color=MUTED, pad=20)


def _rate_axis(axes: Axes, top: float) -> None:
    axes.set_ylim(0, top * 1.15 or 1.0)
    axes.set_yticks([0, top], ["0", f"{top:.1e}".replace("e-0", "e\u2212")])
    axes.set_title("learning rate", loc="left", size=9, color=MUTED, pad=4)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("step", size=9)


def _name_bands(figure: Figure, axes: Axes, stages: Sequence[Stage]) -> None:
    """Write each stage's number, and its name where the band is wide enough, above the band."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    for number, stage in enumerate(stages, start=1):
        label = axes.annotate(
            f"{number} {stage.name}" if len(stages) > 1 else stage.name,
            ((stage.start + stage.end) / 2, 1),
            (0, 5),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            va="bottom",
            size=9,
        )
        left, right = axes.transData.transform([(stage.start, 1), (stage.end, 1)])[:, 0]
        if label.get_window_extent(renderer).width > right - left:
            label.set_text(str(number))


def _last_value(axes: Axes, steps: Sequence[Step]) -> None:
    last = steps[-max(len(steps) // 40, 5) :]
    x, value = last[-1].step, float(np.median([step.loss for step in last]))
    axes.plot(x, value, "o", color=MODEL, markersize=4.5, clip_on=False, zorder=4)
    axes.annotate(
        f"{value:.2g}",
        (x, value),
        (7, 0),
        textcoords="offset points",
        va="center",
        color=MODEL,
        weight="bold",
        annotation_clip=False,
    )


def _accuracy_row(axes: Axes, y: int, scores: KindScores) -> None:
    """Draw the model as a bar, a blind model as a tick across it and guessing as a point on it."""
    accuracy = scores["accuracy"]
    axes.barh(y, accuracy, height=0.42, color=MODEL, zorder=2)
    inside = accuracy > 0.25
    axes.annotate(
        percent(accuracy),
        (0 if inside else accuracy, y),
        (6, 0),
        textcoords="offset points",
        va="center",
        color="white" if inside else MODEL,
        weight="bold",
        zorder=5,
    )
    blind = scores["question_only_accuracy"]
    if blind is not None:
        axes.plot([blind, blind], [y - 0.3, y + 0.3], color="white", linewidth=4.6, zorder=3)
        axes.plot([blind, blind], [y - 0.3, y + 0.3], color=BLIND, linewidth=2.6, zorder=4)
    usual = scores["majority_accuracy"]
    axes.plot(usual, y + 0.3, "^", color=USUAL, markersize=7, zorder=4, clip_on=False)


def caption_of_stages(journal: Journal) -> str:
    """Name the numbered bands of `loss_figure`: "1 concept (600 steps), 2 ..."."""
    return ", ".join(
        f"{number} {stage.name} ({count(stage.end - stage.start)} steps)"
        for number, stage in enumerate(journal.stages, start=1)
    )
