"""Views show what they are given where it belongs, and no words lie over each other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from lightning_mono.attention import Look, figures, look
from lightning_mono.inference import Assistant
from lightning_mono.style import house_style

from .conftest import QUESTION, noise

SIZES = {1: (16, 16), 5: (32, 32), 13: (64, 48)}
"""A picture of so many tiles, the thumbnail included."""


@pytest.fixture(scope="module")
def looks(assistant: Assistant) -> dict[int, Look]:
    found = {
        tiles: look(assistant, QUESTION, [noise(*size)], max_new_tokens=8)
        for tiles, size in SIZES.items()
    }
    for tiles, seen in found.items():
        assert seen.pictures[0].mosaic.tiles == tiles
    return found


VIEWS: dict[str, Callable[[Look], Figure]] = {
    "map": lambda seen: figures.map_figure(seen, 1),
    "overlay": lambda seen: figures.overlay_figure(seen, 1, 2),
    "one head": lambda seen: figures.overlay_figure(seen, 1, 2, head=3),
    "rollout": lambda seen: figures.rollout_figure(seen, 2),
    "heads": lambda seen: figures.heads_figure(seen, 1, 2),
    "film": lambda seen: figures.film_figure(seen, 1),
    "difference": lambda seen: figures.difference_figure(
        seen, replace(seen, maps={1: np.flip(seen.maps[1], 1)}), 1, ("before", "after")
    ),
    "measures": figures.measures_figure,
}


@pytest.mark.parametrize(
    ("tiles", "view"),
    [(1, "measures"), *((tiles, view) for tiles in SIZES for view in VIEWS if view != "measures")],
)
def test_no_words_lie_over_each_other(
    looks: dict[int, Look], tiles: int, view: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = VIEWS[view](looks[tiles])
    drawn: dict[Text, None] = {}
    draw = Text.draw

    def note(text: Text, renderer: object) -> None:
        drawn[text] = None
        draw(text, renderer)

    monkeypatch.setattr(Text, "draw", note)
    with house_style():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        width, height = canvas.get_width_height()
        words = [
            (text.get_text(), text.get_window_extent(canvas.get_renderer()))
            for text in drawn
            if text.get_text().strip()
        ]
    assert words
    for text, box in words:
        assert min(box.x0, box.y0) > -2, text
        assert max(box.x1 - width, box.y1 - height) < 2, text
    for (text, box), (other, its) in combinations(words, 2):
        across = min(box.x1, its.x1) - max(box.x0, its.x0)
        down = min(box.y1, its.y1) - max(box.y0, its.y0)
        assert across < 2 or down < 2, (text, other)


@pytest.mark.parametrize("tiles", SIZES)
def test_an_overlay_lights_exactly_the_square_of_a_token(
    looks: dict[int, Look], tiles: int
) -> None:
    black = Image.new("RGB", SIZES[tiles])
    seen = looks[tiles]
    picture = replace(seen.pictures[0], image=black)
    seen = replace(seen, pictures=[picture])
    dark = figures.row_figure(seen, np.zeros(len(seen.tokens), np.float32), "none")
    for token in range(0, picture.mosaic.tokens, 5):
        row = np.zeros(len(seen.tokens), np.float32)
        row[picture.start + token] = 0.5
        figure = figures.row_figure(seen, row, "one")
        image, nothing = (np.asarray(f.axes[0].images[0].get_array()) for f in (figure, dark))
        lit = (image != nothing).any(-1)
        high, wide = lit.shape
        left, top, right, bottom = picture.mosaic.box(token)
        x = (np.arange(wide) + 0.5) * picture.mosaic.width / wide
        y = (np.arange(high) + 0.5) * picture.mosaic.height / high
        inside = ((y > top) & (y < bottom))[:, None] & ((x > left) & (x < right))
        assert (lit == inside).all()
        assert f"{0.5:.1%}" in figure.axes[0].get_title(loc="left")


def test_each_head_and_each_token_has_a_panel(looks: dict[int, Look]) -> None:
    seen = looks[5]
    heads = [axes for axes in figures.heads_figure(seen, 0, 0).axes if axes.images]
    film = [axes for axes in figures.film_figure(seen, 0).axes if axes.images]
    assert (len(heads), len(film)) == (4, len(seen.said))
    for head, axes in enumerate(heads):
        share = seen.image_share(seen.row(0, 0, head))
        assert axes.get_title() == f"head {head}: {share:.0%}"


def test_a_difference_is_the_second_minus_the_first(looks: dict[int, Look]) -> None:
    seen = looks[1]
    moved = {layer: np.flip(weights, 1) for layer, weights in seen.maps.items()}
    figure = figures.difference_figure(seen, replace(seen, maps=moved), 1, ("a", "b"))
    drawn = figure.axes[0].images[0].get_array()
    asked = seen.prompt
    below = np.tril_indices(asked)
    expected = (moved[1] - seen.maps[1])[:asked, :asked]
    np.testing.assert_allclose(np.asarray(drawn)[below], expected[below])
    with pytest.raises(ValueError, match="different prompts"):
        figures.difference_figure(seen, looks[5], 1, ("a", "b"))


def test_without_a_picture_there_is_nothing_to_lay_attention_over(
    assistant: Assistant, tmp_path: Path
) -> None:
    seen = look(assistant, QUESTION, max_new_tokens=3)
    for view in ("overlay", "heads", "film", "rollout"):
        with pytest.raises(ValueError, match="the prompt has no picture"):
            VIEWS[view](seen)
    figures.save_figure(figures.map_figure(seen, 0), tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as image:
        assert image.size == (1140, 1050)


def test_drawing_needs_neither_metrics_nor_reports() -> None:
    code = (
        "import sys, lightning_mono.attention.figures\n"
        "print([m for m in sys.modules if m.startswith(('torchmetrics', 'lightning_mono.eval'))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
