"""Attention document by document is attention under the mask that they make."""

from __future__ import annotations

import torch
from drawn import rows
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mono.model.attend import attend, attend_by_document
from lightning_mono.model.mask import allowed_pairs
from lightning_mono.model.spans import Documents, find_spans
from lightning_mono.testing import tiny_batch, tiny_config

CONFIG = tiny_config()


@settings(max_examples=60)
@given(packed=st.lists(rows, min_size=1, max_size=3), group=st.sampled_from([1, 2]))
def test_outputs_and_gradients_are_those_of_the_mask(
    packed: list[list[list[list[int]]]], group: int
) -> None:
    batch = tiny_batch(packed, CONFIG)
    spans = find_spans(batch.documents, batch.branches)
    assert spans is not None
    assert sum(span.length for span in spans) == batch.input_ids.numel()
    mask = allowed_pairs(batch.documents, batch.branches, batch.documents, batch.branches, offset=0)
    size, tokens = batch.input_ids.shape
    generator = torch.Generator().manual_seed(0)

    def drawn(heads: int) -> torch.Tensor:
        shape = (size, heads, tokens, 4)
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    q, k, v = drawn(2 * group), drawn(2), drawn(2)
    above = torch.randn(q.shape, generator=generator, dtype=torch.float64)
    documents = Documents.of(spans, batch.branches)
    results = []
    for y in (attend(q, k, v, mask), attend_by_document(q, k, v, documents)):
        results.append([y, *torch.autograd.grad(y, (q, k, v), above)])
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-9, rtol=0)


def test_a_document_in_two_pieces_is_left_to_the_mask() -> None:
    documents = torch.tensor([[1, 1, 2, 1]])
    assert find_spans(documents, torch.zeros_like(documents)) is None


def test_rows_know_their_spans_and_plain_ones_need_none() -> None:
    packed = tiny_batch([[[[5, 6]], [[7], [8], [9]]], [[[4]]]], CONFIG)
    assert packed.spans is not None
    kinds = [(s.length, s.padding, s.branched) for s in packed.spans]
    assert kinds == [(2, False, False), (3, False, True), (1, False, False), (4, True, False)]
    assert tiny_batch([[[[5, 6]]]], CONFIG).spans is None
