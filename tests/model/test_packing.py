"""Packed rows, branches and padding: how tokens share a batch never changes what they mean."""

from __future__ import annotations

import pytest
import torch
from drawn import documents, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mono.model import Batch
from lightning_mono.testing import IMAGE, tiny_batch, tiny_model

MODEL = tiny_model(dtype=torch.float64)


@torch.no_grad()
def _logits(batch: Batch) -> torch.Tensor:
    return MODEL.logits(MODEL.hidden(batch))


def _tiles(document: list[list[int]]) -> int:
    return sum(part.count(IMAGE) for part in document) // 4


@settings(max_examples=40)
@given(packed=st.lists(rows, min_size=1, max_size=2))
def test_each_branch_reads_as_if_it_were_alone_behind_its_prefix(
    packed: list[list[list[list[int]]]],
) -> None:
    batch = tiny_batch(packed, MODEL.config)
    logits = _logits(batch)
    tile = 0
    for row, packed_row in enumerate(packed):
        at = 0
        for document in packed_row:
            pixels = batch.pixel_values[tile : tile + _tiles(document)]
            tile += _tiles(document)
            prefix, *branches = document
            start = at + len(prefix)
            for branch in branches or [[]]:
                single = tiny_batch([[[prefix + branch]]], MODEL.config, pixel_values=pixels)
                alone = _logits(single)[0]
                ours = torch.cat(
                    [logits[row, at : at + len(prefix)], logits[row, start:][: len(branch)]]
                )
                torch.testing.assert_close(ours, alone, atol=1e-5, rtol=1e-5)
                start += len(branch)
            at += sum(map(len, document))


@settings(max_examples=40)
@given(row=st.lists(documents, min_size=1, max_size=3), data=st.data())
def test_changing_one_branch_changes_no_other(
    row: list[list[list[int]]], data: st.DataObject
) -> None:
    batch = tiny_batch([row], MODEL.config)
    at = data.draw(st.integers(0, batch.input_ids.shape[1] - 1))
    if batch.layout.mask[0, at]:
        return
    other = tiny_batch([row], MODEL.config)
    other.input_ids[0, at] = 4 if batch.input_ids[0, at] != 4 else 5
    document, branch = batch.documents[0, at], batch.branches[0, at]
    sees = (batch.documents[0] == document) & (torch.arange(batch.input_ids.shape[1]) >= at)
    if branch:
        sees &= batch.branches[0] == branch
    before, after = _logits(batch)[0], _logits(other)[0]
    assert torch.equal(before[~sees], after[~sees])
    assert (before[sees] != after[sees]).any(-1).all(), "a token did not see what it should"


@pytest.mark.parametrize("left", [0, 1, 5])
@pytest.mark.parametrize("right", [0, 1, 5])
def test_padding_on_either_side_changes_nothing(left: int, right: int) -> None:
    ids = [5, 6, IMAGE, IMAGE, IMAGE, IMAGE, 7, 8]
    padded = torch.tensor([[0] * left + ids + [0] * right, [9] * (left + len(ids) + right)])
    mask = torch.tensor([[0] * left + [1] * len(ids) + [0] * right, [1] * padded.shape[1]])
    pixels = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        alone = MODEL(torch.tensor([ids]), pixels).logits[0]
        ours = MODEL(padded, pixels, attention_mask=mask).logits
    torch.testing.assert_close(ours[0, left : left + len(ids)], alone, atol=1e-9, rtol=1e-9)
    assert torch.isfinite(ours).all()


def test_targets_are_the_tokens_behind_the_predicting_positions() -> None:
    batch = tiny_batch([[[[5, 6, 7], [8, 9], [10, 11]]], [[[12, 13]]]], MODEL.config)
    ids = batch.input_ids.reshape(-1)
    assert batch.targets.tolist() == [6, 7, 9, 11, 13]
    assert ids[batch.predict].tolist() == [5, 6, 8, 10, 12]
    assert batch.tokens == 9
    assert batch.positions[0].tolist() == [0, 1, 2, 3, 4, 3, 4]
    assert not batch.plain


def test_plain_means_one_whole_document_a_row() -> None:
    assert tiny_batch([[[[5, 6, 7]]], [[[8, 9, 4]]]], MODEL.config).plain
    assert not tiny_batch([[[[5, 6, 7]]], [[[8, 9]]]], MODEL.config).plain
    assert not tiny_batch([[[[5, 6]], [[7, 8]]]], MODEL.config).plain


@pytest.mark.parametrize(
    ("at", "documents", "branches"),
    [
        (0, [1, 1, 1, 1], [0, 0, 0, 0]),
        (2, [1, 1, 2, 2], [0, 0, 0, 0]),
        (3, [1, 1, 1, 1], [0, 0, 1, 2]),
        (3, [1, 1, 0, 0], [0, 0, 0, 0]),
    ],
    ids=["opens the row", "opens its document", "opens the second branch", "is padding"],
)
def test_a_target_that_nothing_predicts_is_refused(
    at: int, documents: list[int], branches: list[int]
) -> None:
    supervised = torch.zeros(1, 4, dtype=torch.bool)
    supervised[0, at] = True
    with pytest.raises(ValueError, match="supervised"):
        Batch.build(
            input_ids=torch.tensor([[5, 6, 7, 8]]),
            positions=torch.arange(4)[None],
            documents=torch.tensor([documents], dtype=torch.int32),
            branches=torch.tensor([branches], dtype=torch.int32),
            supervised=supervised,
            pixel_values=torch.zeros(0, 3, 16, 16),
            image_context_id=IMAGE,
        )


def test_moving_a_batch_keeps_everything() -> None:
    batch = tiny_batch([[[[5, IMAGE, IMAGE, IMAGE, IMAGE, 6]]]], MODEL.config)
    batch.samples = ["a/1"]
    moved = batch.to("cpu")
    assert moved.samples == ["a/1"]
    assert moved.plain is batch.plain
    assert torch.equal(_logits(moved), _logits(batch))
