"""A batch in parts has the loss and the gradients of the batch, whatever is in its rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mono.model import Batch
from lightning_mono.model.rows import batch_rows, split
from lightning_mono.objectives import next_token_loss
from lightning_mono.testing import IMAGE, tiny_batch, tiny_config, tiny_model

CONFIG = tiny_config()
TILE = [IMAGE] * 4
DOCUMENTS = st.sampled_from(
    [[[5, *TILE, 7, 9]], [[8, 9, 10]], [[*TILE, *TILE, 30], [4, 5]], [[6, 7], [8], [9, 10, 11]]]
)
ROWS = st.lists(st.lists(DOCUMENTS, min_size=1, max_size=3), min_size=1, max_size=5)


def gradients(parts: list[Batch], weight: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
    model = tiny_model(CONFIG, dtype=torch.float64)
    loss = torch.zeros(())
    for part in parts:
        one = next_token_loss(model, part, model.hidden(part, wanted=part.wanted), weight)
        one.backward()
        loss = loss + one.detach()
    return float(loss), [p.grad for p in model.parameters() if p.grad is not None]


@settings(max_examples=25)
@given(rows=ROWS, data=st.data(), loss=st.sampled_from(["token", "sample", "square"]))
def test_parts_add_up_to_the_whole(rows: list, data: st.DataObject, loss: str) -> None:
    batch = tiny_batch(rows, CONFIG)
    documents = batch.documents.reshape(-1)
    if loss != "token":  # weights that differ by document
        batch.weights = 1 / (1 + documents[batch.predict].float())
    parts = list(split(batch, data.draw(st.integers(1, len(rows)))))
    weight = batch.weights.sum()
    whole, ours = gradients([batch], weight), gradients(parts, weight)
    assert ours[0] == pytest.approx(whole[0], abs=1e-6)
    for expected, got in zip(whole[1], ours[1], strict=True):
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
    assert sum(part.tokens for part in parts) == batch.tokens
    assert torch.equal(torch.cat([part.pixel_values for part in parts]), batch.pixel_values)
    assert torch.equal(torch.cat([part.input_ids for part in parts]), batch.input_ids)
    counts = [len(part.input_ids) for part in parts]
    assert max(counts) - min(counts) <= 1


@given(rows=ROWS, data=st.data())
def test_some_rows_are_the_batch_of_those_rows(rows: list, data: st.DataObject) -> None:
    batch = tiny_batch(rows, CONFIG)
    start = data.draw(st.integers(0, len(rows) - 1))
    stop = data.draw(st.integers(start + 1, len(rows)))
    part = batch_rows(batch, start, stop)
    width = batch.input_ids.shape[1]
    inside = slice(start * width, stop * width)
    assert torch.equal(part.layout.mask, batch.layout.mask[start:stop])
    predicts = torch.zeros(batch.input_ids.numel(), dtype=torch.bool)
    predicts[batch.predict] = True
    assert torch.equal(part.predict, predicts[inside].nonzero()[:, 0])
    here = (batch.predict >= inside.start) & (batch.predict < inside.stop)
    assert torch.equal(part.targets, batch.targets[here])
    assert part.plain == (bool((part.documents == 1).all()) and not bool(part.branches.any()))


def test_more_parts_than_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="2 rows cannot be computed in 3 parts"):
        list(split(tiny_batch([[[[4, 5]]], [[[6, 7]]]], CONFIG), 3))
