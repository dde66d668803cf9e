"""A look holds what the model did as it answered, and says what each token is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_mono.attention import look
from lightning_mono.inference import Assistant

from .conftest import QUESTION, noise

PICTURES = [noise(60, 20), noise(20, 20)]


def _ids(assistant: Assistant, found: int) -> torch.Tensor:
    prompt = assistant.renderer.prompt(QUESTION, PICTURES)
    inputs = assistant.inputs([prompt])
    stops = assistant.renderer.stop_ids
    new = assistant.model.generate(**inputs, max_new_tokens=found, stop_ids=stops)
    return torch.cat([inputs["input_ids"], new[:, :-1]], dim=1)


def test_it_is_what_the_model_attends_with(assistant: Assistant) -> None:
    seen = look(assistant, QUESTION, PICTURES, layers=[1], max_new_tokens=5)
    assert seen.answer == assistant.answer([(PICTURES, QUESTION)], 5)[0]
    assert seen.layers == [1]
    ids = _ids(assistant, 5)
    assert ids.shape[1] == len(seen.tokens) == seen.prompt + len(seen.said) - 1
    pixels = torch.from_numpy(assistant.renderer.prompt(QUESTION, PICTURES).pixel_values)
    with torch.no_grad():
        full = assistant.model(ids, pixels, output_attentions=True).attentions[1][0].numpy()
    np.testing.assert_allclose(seen.heads[1], full[:, seen.prompt - 1 :], atol=1e-6)
    np.testing.assert_allclose(seen.maps[1], full.mean(0), atol=1e-6)
    np.testing.assert_allclose(seen.row(1, 2), full[:, seen.prompt + 1].mean(0), atol=1e-6)
    np.testing.assert_allclose(seen.row(1, 2, head=3), full[3, seen.prompt + 1], atol=1e-6)
    visual = assistant.model.batch(ids, pixels).layout.mask[0].numpy()
    row = seen.row(1, 0)
    assert seen.image_share(row) == pytest.approx(float(row[visual].sum()), abs=1e-6)
    by_head = full[:, seen.prompt - 1 :, visual].sum(-1).mean(1)
    np.testing.assert_allclose(seen.measures["image_share"][1], by_head, atol=1e-6)


def test_segments_spell_the_prompt(assistant: Assistant) -> None:
    system = assistant.renderer.system
    assistant.renderer.system = "a blue square"
    try:
        seen = look(assistant, QUESTION, PICTURES, layers=[0], max_new_tokens=4)
    finally:
        assistant.renderer.system = system
    spelled = dict.fromkeys(("system", "image", "question", "answer"), "")
    for segment in seen.segments:
        spelled[segment.kind] += "".join(seen.tokens[segment.start : segment.stop])
    assert [segment.start for segment in seen.segments] == [
        0,
        *(segment.stop for segment in seen.segments[:-1]),
    ]
    assert "a blue square" in spelled["system"]
    assert "user" in spelled["system"]
    assert spelled["question"].count(QUESTION) == 1
    assert spelled["answer"] == "".join(seen.said[:-1])
    assert spelled["image"].strip("▪") == "<img>" + spelled["image"][5:-6] + "</img>"
    marks = sum(text == "▪" for text in seen.tokens)
    assert marks == sum(picture.mosaic.tokens for picture in seen.pictures)
    for picture in seen.pictures:
        stop = picture.start + picture.mosaic.tokens
        assert set(seen.tokens[picture.start : stop]) == {"▪"}
        assert seen.tokens[picture.start - 1] == "<img>"
        assert seen.tokens[stop] == "</img>"


def test_a_prompt_without_pictures_is_looked_at_too(assistant: Assistant) -> None:
    seen = look(assistant, QUESTION, max_new_tokens=3)
    assert seen.pictures == []
    assert seen.layers == [0, 1]
    assert seen.image_share(seen.row(0, 0)) == 0
    np.testing.assert_allclose(seen.rollout.sum(1), 1, atol=1e-5)


def test_a_layer_that_is_not_there_is_said(assistant: Assistant) -> None:
    with pytest.raises(ValueError, match="layer 2 does not exist: the model has 0 to 1"):
        look(assistant, QUESTION, PICTURES, layers=[2])
