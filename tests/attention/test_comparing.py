"""Views of several models, and of a run's journal, show the numbers that they are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lightning_mono.attention import MEASURES, Look, figures, look
from lightning_mono.errors import DataError
from lightning_mono.inference import Assistant
from lightning_mono.journal import Journal

from .conftest import QUESTION, noise


@pytest.fixture(scope="module")
def looks(assistant: Assistant) -> list[Look]:
    questions = (QUESTION, "is there a circle?", "what is it?")
    return [look(assistant, question, [noise(16, 16)], max_new_tokens=2) for question in questions]


def test_each_model_has_a_row_and_each_layer_a_column(looks: list[Look]) -> None:
    figure = figures.layers_figure({"one": looks[0], "other": looks[1]})
    assert len(figure.axes) == 2 * len(looks[0].layers)
    titles = [axes.get_title() for axes in figure.axes]
    shares = [(layer, one.image_share(one.row(layer, 0))) for one in looks[:2] for layer in (0, 1)]
    assert titles == [f"layer {layer}: {share:.0%}" for layer, share in shares]
    assert looks[1].answer.replace("$", r"\$") in figure.axes[2].get_ylabel()


def test_lines_are_means_over_heads_and_questions(looks: list[Look]) -> None:
    names = ["image_share", "entropy"]
    figure = figures.compare_figure({"a": looks, "b": looks[:1]}, names)
    for axes, name in zip(figure.axes, names, strict=False):
        assert axes.get_title(loc="left").startswith(MEASURES[name].title)
        for container, some in zip(axes.containers, (looks, looks[:1]), strict=True):
            expected = np.mean([one.measures[name].mean(1) for one in some], 0)
            np.testing.assert_allclose(container.lines[0].get_ydata(), expected)


def test_a_line_a_layer_over_the_steps_of_all_stages(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write("stage", stage="first", step=0, resumed=False)
    for step in (10, 20, 30, 40):
        if step == 30:
            journal.write("stage", stage="second", step=20, resumed=False)
        journal.write("attention", step=step, image_share=[0.1, step / 100])
    axes = figures.training_figure(journal.path).axes[0]
    points = [line for line in axes.lines if line.get_marker() == "."]
    assert [(list(p.get_xdata()), list(p.get_ydata())) for p in points] == [
        ([10, 20], [0.1, 0.1]),
        ([10, 20], [0.1, 0.2]),
        ([30, 40], [0.1, 0.1]),
        ([30, 40], [0.3, 0.4]),
    ]
    assert [text.get_text() for text in axes.texts] == ["first", "second"]
    with pytest.raises(DataError, match=r"holds no sink; set trainer\.attention_every"):
        figures.training_figure(journal.path, "sink")


def test_the_pointing_game_stands_beside_chance() -> None:
    axes = figures.pointing_figure({"a": np.array([0.5, 1.0])}, 0.25).axes[0]
    line, chance = axes.lines
    assert list(line.get_ydata()) == [0.5, 1.0]
    assert set(chance.get_ydata()) == {0.25}
