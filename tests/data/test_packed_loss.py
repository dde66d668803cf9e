"""The loss of packed rows is that of the same samples padded to a row each, gradients included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lightning_mono import kernels
from lightning_mono.backbones.tokenizer import add_image_tokens
from lightning_mono.data.collate import collate
from lightning_mono.data.example import Example
from lightning_mono.data.images import ImageProcessor
from lightning_mono.data.loader import StageData, stage_loader
from lightning_mono.data.prepare import prepare
from lightning_mono.data.render import Renderer
from lightning_mono.data.sample import Exchange, Sample
from lightning_mono.data.sources import SOURCES, Source, SourceSpec
from lightning_mono.data.store import Store
from lightning_mono.data.templates import CHAT_TEMPLATES
from lightning_mono.model import Batch, MonoModel
from lightning_mono.objectives import next_token_loss
from lightning_mono.testing import kernels_here, tiny_config, tiny_model

from .conftest import png

Loss = Literal["token", "sample", "square"]
LOSSES: tuple[Loss, ...] = get_args(Loss)
ROW = 160
PAD = 5
TILE, TILE_TOKENS = 16, 4

ONE, WIDE, TALL = png("red", (16, 16)), png("blue", (48, 16)), png("green", (12, 30))
RED, SHAPE = Exchange("is it red?", "yes"), Exchange("what shape?", "a blue circle in the image")
SAMPLES = [
    Sample("one tile", (ONE,), (RED,)),
    Sample("three tiles and a thumbnail", (WIDE,), (SHAPE,)),
    Sample("two pictures", (ONE, TALL), (Exchange("which is red?", "no"),)),
    Sample("questions that share a picture", (TALL,), (RED, SHAPE, Exchange("blue?", "no"))),
    Sample(
        "a dialogue with a picture in its second turn",
        (ONE,),
        (SHAPE, Exchange("and <image> is it red?", "yes")),
        dialogue=True,
    ),
    Sample("questions about a text", (), (RED, SHAPE), text="there is a red triangle"),
    Sample("a document", text="is there a red triangle in the image? yes, and a blue circle."),
    Sample("a question alone", (), (RED,)),
]
"""Every shape that a sample has."""


@pytest.fixture(scope="module")
def renderer(tokenizer: Tokenizer) -> Renderer:
    images = ImageProcessor(TILE, max_tiles=3, thumbnail=True)
    ids = add_image_tokens(tokenizer)
    return Renderer(tokenizer, CHAT_TEMPLATES["plain"], ids, images, TILE_TOKENS)


@pytest.fixture(scope="module")
def model(renderer: Renderer) -> MonoModel:
    """Experts of every kind in every layer."""
    vocabulary = renderer.tokenizer.get_vocab_size()
    assert renderer.image_tokens is not None
    config = tiny_config(vocab_size=vocabulary)
    config = replace(config, image_context_id=renderer.image_tokens.context)
    return tiny_model(config, dtype=torch.float64)


def loss_and_gradients(model: MonoModel, batch: Batch) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = next_token_loss(model, batch, model.hidden(batch, wanted=batch.wanted))
    loss.backward()
    return float(loss.detach()), {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def assert_same_step(model: MonoModel, packed: Batch, padded: Batch) -> None:
    assert len(packed.input_ids) < len(padded.input_ids) == len(packed.samples)
    assert packed.samples == padded.samples
    assert packed.tokens == padded.tokens
    loss, gradients = loss_and_gradients(model, packed)
    alone, expected = loss_and_gradients(model, padded)
    assert loss == pytest.approx(alone, rel=1e-6, abs=0)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        # Losses are summed in fp32, so gradients agree to its last bits.
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-5 * scale, msg=name)


@st.composite
def packed_rows(draw: st.DrawFn) -> list[list[int]]:
    """Numbers of samples that share rows; at least two share one."""
    rows = draw(
        st.lists(
            st.lists(st.integers(0, len(SAMPLES) - 1), min_size=1, max_size=4),
            min_size=1,
            max_size=3,
        )
    )
    return [*rows, draw(st.lists(st.integers(0, len(SAMPLES) - 1), min_size=2, max_size=3))]


@pytest.mark.parametrize("loss", LOSSES)
@settings(max_examples=10)
@given(rows=packed_rows())
def test_any_samples_in_any_rows(
    model: MonoModel, renderer: Renderer, loss: Loss, rows: list[list[int]]
) -> None:
    examples = [[_example(renderer, SAMPLES[number]) for number in row] for row in rows]
    alone = [[example] for row in examples for example in row]
    packed, padded = (
        collate(each, renderer, max(_tokens(row) for row in each), PAD, loss)
        for each in (examples, alone)
    )
    assert_same_step(model, packed, padded)


@pytest.mark.parametrize("kernel", kernels_here(torch.float64))
@pytest.mark.parametrize("loss", LOSSES)
def test_batches_of_a_stage(
    model: MonoModel,
    renderer: Renderer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    loss: Loss,
    kernel: str,
) -> None:
    def read(split: str) -> Iterator[Sample]:
        yield from SAMPLES

    monkeypatch.setitem(SOURCES, "made", Source(read))  # type: ignore[arg-type]
    store = Store(prepare(SourceSpec("made"), tmp_path))
    data = StageData(
        [(store, 1.0)],
        renderer,
        sequence_length=ROW,
        batch_size=2,
        seed=1,
        pad_id=PAD,
        loss=loss,
    )
    by_id = {sample.id: sample for sample in SAMPLES}
    kernels.use(model, kernel)
    for packed in islice(stage_loader(data), 3):
        alone = [[_example(renderer, by_id[name])] for name in packed.samples]
        assert_same_step(model, packed, collate(alone, renderer, ROW, PAD, loss))


def _example(renderer: Renderer, sample: Sample) -> Example:
    example = renderer.example(sample, ROW)
    assert example is not None
    assert not example.dropped
    return example


def _tokens(row: list[Example]) -> int:
    return sum(len(example.input_ids) for example in row)


def test_the_weightings_are_told_apart(model: MonoModel, renderer: Renderer) -> None:
    rows = [[_example(renderer, sample) for sample in SAMPLES[:3]]]
    losses = [
        loss_and_gradients(model, collate(rows, renderer, _tokens(rows[0]), PAD, loss))[0]
        for loss in LOSSES
    ]
    assert len(set(losses)) == 3
