"""Charts: they show the numbers they were given, whatever the run was like."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_mono.evaluation.benchmark import score
from lightning_mono.evaluation.report.figures import accuracy_figure, loss_figure, time_figure
from lightning_mono.evaluation.report.run import Journal, read_journal
from lightning_mono.evaluation.report.svg import figure_svg
from lightning_mono.style import ROLES

from .made_runs import STAGES, journal, predictions_of, write_journal

WIDTHS = [3.7, 7.6]


@pytest.fixture
def trained(tmp_path: Path) -> Journal:
    write_journal(tmp_path, journal(STAGES))
    return read_journal(tmp_path / "journal.jsonl")


def _texts_do_not_overlap(figure: Figure, axes: Axes) -> None:
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    labels = [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels()]
    boxes = [
        (label.get_text(), label.get_window_extent(renderer))
        for label in labels
        if label.get_text() and label.get_visible()
    ]
    for i, (name, box) in enumerate(boxes):
        for other, other_box in boxes[:i]:
            assert not box.shrunk(0.98, 0.9).overlaps(other_box), f"{name!r} over {other!r}"


@pytest.mark.parametrize("width", WIDTHS)
def test_the_curve_is_the_journal_and_each_stage_has_its_own(
    trained: Journal, width: float
) -> None:
    figure = loss_figure(trained, width)
    loss, rate = figure.axes
    raw = [line for line in loss.lines if line.get_alpha() is not None]
    assert len(raw) == len(trained.stages)
    drawn = [value for line in raw for value in line.get_ydata()]
    assert drawn == [step.loss for step in trained.steps]
    assert list(rate.lines[0].get_ydata()) == [step.lr for step in trained.steps]
    _texts_do_not_overlap(figure, loss)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_stage_too_short_for_its_name_has_its_number(tmp_path: Path, width: float) -> None:
    short = {"a_very_long_name_indeed": (3, ["x"], 1, 1e-3), "main": (600, ["x"], 1, 1e-3)}
    write_journal(tmp_path, journal(short))
    figure = loss_figure(read_journal(tmp_path / "journal.jsonl"), width)
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert "1" in labels
    assert "2 main" in labels


@pytest.mark.parametrize("losses", [[1.0], [2.0, 2.1], [5.0, 0.0], [3.0, float("nan"), 1.0]])
def test_odd_losses_are_drawn_too(tmp_path: Path, losses: list[float]) -> None:
    steps = [r for r in journal(STAGES) if r["event"] == "step"][: len(losses)]
    records = [{**step, "loss": loss} for step, loss in zip(steps, losses, strict=True)]
    write_journal(tmp_path, records)
    found = read_journal(tmp_path / "journal.jsonl")
    assert "<svg" in figure_svg(loss_figure(found, 7.6), "loss", "wide", "loss")


@pytest.mark.parametrize("width", WIDTHS)
def test_bars_are_as_long_as_the_model_is_right(width: float) -> None:
    scores = score(predictions_of(0.75)[0], predictions_of(0.2)[0])
    figure = accuracy_figure(scores, width)
    (axes,) = figure.axes
    lengths = [bar.get_width() for bar in axes.patches]
    kinds = sorted(scores["by_kind"].values(), key=lambda kind: -kind["questions"])
    assert lengths == [scores["accuracy"], *(kind["accuracy"] for kind in kinds)]
    _texts_do_not_overlap(figure, axes)


@pytest.mark.parametrize("width", WIDTHS)
def test_time_bars_are_the_parts(trained: Journal, width: float) -> None:
    figure = time_figure(trained, width)
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == list(trained.parts.values())
    _texts_do_not_overlap(figure, axes)


def test_a_chart_takes_the_colours_of_the_page_and_keeps_its_ids_to_itself(
    trained: Journal,
) -> None:
    svg = figure_svg(time_figure(trained, 7.6), "time-wide", "wide", 'Says "hello" & more')
    assert "#000000" not in svg
    assert not any(colour in svg for colour in ROLES)
    assert "var(--model)" in svg
    assert 'aria-label="Says &#34;hello&#34; &amp; more"' in svg
    assert svg.count(' id="') == svg.count(' id="time-wide-')
