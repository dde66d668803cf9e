"""The attention picture: the right weights, the right cells, and a faithful file."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_mono.errors import DataError
from lightning_mono.evaluation.report.attention import AttentionPicture, overlay
from lightning_mono.inference import Assistant

from .made_runs import drawing, looking


@pytest.mark.parametrize(("size", "tiles"), [((16, 16), 1), ((32, 16), 3)])
def test_weights_are_those_of_the_last_row_where_its_tokens_lie(
    assistant: Assistant, size: tuple[int, int], tiles: int
) -> None:
    """The model's own attentions are the judge; the thumbnail's are spread over both tiles."""
    file = io.BytesIO()
    Image.radial_gradient("L").resize(size).convert("RGB").save(file, "png")
    image = file.getvalue()
    picture = AttentionPicture.of(assistant, image, "is it red?", "!")
    prompt = assistant.renderer.prompt("is it red?", [image])
    assert prompt.pixel_values.shape[0] == tiles
    ids, pixels = torch.from_numpy(prompt.input_ids)[None], torch.from_numpy(prompt.pixel_values)
    with torch.inference_mode():
        attentions = assistant.model(ids, pixels, output_attentions=True).attentions
    visual = assistant.model.batch(ids, pixels).layout.mask[0]
    assert attentions is not None
    for layer, weights in zip(attentions, picture.weights, strict=True):
        cells = layer[0, :, -1, visual].mean(0).reshape(tiles, 2, 2).numpy()
        expected = np.concatenate(list(cells[: max(tiles - 1, 1)]), axis=1)
        if tiles > 1:
            expected = expected + cells[-1].repeat(2, axis=1) / 2
        np.testing.assert_allclose(weights, expected, atol=1e-6)
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
