"""Attention weights are those that were used, and asking for them changes nothing."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mono.attention import Capture
from lightning_mono.model.attention import attention_weights
from lightning_mono.model.mask import allowed_pairs
from lightning_mono.testing import IMAGE, tiny_batch, tiny_model

MODEL = tiny_model()


def test_weights_sum_to_one_and_forbidden_pairs_are_zero() -> None:
    batch = tiny_batch(
        [[[[5, IMAGE, IMAGE, IMAGE, IMAGE], [6, 7], [8]], [[9, 10]]], [[[11, 12, 13]]]],
        MODEL.config,
    )
    capture = Capture(MODEL.config.decoder)
    MODEL.hidden(batch, watch=capture)
    weights = [capture.weights(layer) for layer in capture.layers]
    rows, tokens = batch.input_ids.shape
    assert [w.shape for w in weights] == [(rows, 4, tokens, tokens)] * 2
    allowed = allowed_pairs(
        batch.documents, batch.branches, batch.documents, batch.branches, offset=0
    ).expand_as(weights[0])
    for layer in weights:
        torch.testing.assert_close(layer.sum(-1), torch.ones(layer.shape[:-1]))
        assert not layer[~allowed].any()
        assert (layer[allowed] > 0).all()


def test_asking_for_weights_leaves_logits_bit_identical() -> None:
    ids = torch.tensor([[5, IMAGE, IMAGE, IMAGE, IMAGE, 6], [7] * 6])
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    pixels = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        for attention_mask in (None, mask):
            quiet = MODEL(ids, pixels, attention_mask)
            asked = MODEL(ids, pixels, attention_mask, output_attentions=True)
            assert torch.equal(quiet.logits, asked.logits)
            assert quiet.attentions is None
            assert len(asked.attentions) == 2


def test_weights_reproduce_the_attention_that_was_computed() -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, 5, 8, generator=generator)
    k, v = torch.randn(2, 2, 2, 5, 8, generator=generator)
    weights = attention_weights(q, k, None)
    expected = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=True
    )
    torch.testing.assert_close(weights @ v.repeat_interleave(2, dim=1), expected)


marks = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=8)


@settings(max_examples=100)
@given(tokens=marks, split=st.integers(0, 7))
def test_the_rule_pair_by_pair(tokens: list[tuple[int, int]], split: int) -> None:
    split = min(split, len(tokens) - 1)
    documents, branches = (torch.tensor([column]) for column in zip(*tokens, strict=True))
    ours = allowed_pairs(
        documents[:, split:], branches[:, split:], documents, branches, offset=split
    )[0, 0]
    for i, (document, branch) in enumerate(tokens[split:], start=split):
        for j, (key_document, key_branch) in enumerate(tokens):
            expected = i == j or (
                j < i and document == key_document != 0 and key_branch in (0, branch)
            )
            assert ours[i - split, j] == expected


def test_an_explicit_mask_is_obeyed_without_a_cache() -> None:
    batch = tiny_batch([[[[5, 6, 7, 8]]]], MODEL.config)
    itself = torch.eye(4, dtype=torch.bool)[None, None]
    capture = Capture(MODEL.config.decoder)
    MODEL.hidden(batch, mask=itself, watch=capture)
    assert torch.equal(capture.weights(0), torch.eye(4).expand(1, 4, 4, 4))
