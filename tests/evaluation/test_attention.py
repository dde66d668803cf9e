"""The attention picture: the right weights, the right cells, and a faithful file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lightning_mono.errors import DataError
from lightning_mono.evaluation.report.attention import AttentionPicture, overlay

from .made_runs import drawing, looking


def test_weights_are_those_of_the_last_row_on_the_visual_tokens() -> None:
    rng = np.random.default_rng(0)
    heads, tokens = 3, 12
    layers = [rng.dirichlet(np.ones(tokens), (heads, tokens)).astype(np.float32) for _ in range(2)]
    visual = np.zeros(tokens, dtype=bool)
    visual[2:8] = True
    picture = AttentionPicture.from_attentions(
        layers, visual, (2, 3), image=b"", question="?", answer="!"
    )
    assert picture.weights.shape == (2, 2, 3)
    for layer, weights in zip(layers, picture.weights, strict=True):
        for row in range(2):
            for column in range(3):
                expected = layer[:, -1, 2 + 3 * row + column].mean()
                assert weights[row, column] == pytest.approx(expected)
    assert (picture.shares < 1).all()


def test_the_layer_that_looks_most_is_shown_unless_one_is_chosen() -> None:
    picture = looking(layers=4)
    assert picture.shown_layer == int(picture.shares.argmax())
    assert replace(picture, layer=0).shown_layer == 0


def test_the_brightest_cell_is_the_one_that_gets_most() -> None:
    weights = np.full((1, 4, 4), 0.01, np.float32)
    weights[0, 1, 2] = 0.5
    picture = AttentionPicture(drawing("circle", "red"), "?", "!", weights)
    pixels = np.asarray(overlay(picture, 0, 128).convert("L"), float)
    assert pixels.shape == (128, 128)
    means = pixels.reshape(4, 32, 4, 32).mean((1, 3))
    assert np.unravel_index(means.argmax(), means.shape) == (1, 2)


def test_attention_of_nothing_is_drawn_dark() -> None:
    picture = replace(looking(), weights=np.zeros((1, 4, 4), np.float32))
    assert overlay(picture, 0, 64).size == (64, 64)


def test_it_survives_a_file(tmp_path: Path) -> None:
    path = tmp_path / "attention.npz"
    for picture in (looking(), replace(looking(), layer=2, answer="caf\u00e9")):
        picture.save(path)
        loaded = AttentionPicture.load(path)
        assert loaded.image == picture.image
        assert (loaded.question, loaded.answer) == (picture.question, picture.answer)
        assert loaded.layer == picture.layer
        np.testing.assert_array_equal(loaded.weights, picture.weights)


def test_another_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "attention.npz"
    path.write_text("no")
    with pytest.raises(DataError, match=r"attention\.npz: not an attention picture"):
        AttentionPicture.load(path)
