"""Rotary positions are those of transformers, for every scaling that LLMs ship with."""

from __future__ import annotations

import pytest
import torch

from lightning_mono.backbones import RopeScaling
from lightning_mono.model.positions import rotary_tables, rotate
from lightning_mono.testing import tiny_batch, tiny_config, tiny_decoder, tiny_model

HEAD_DIM = 32
SCALINGS = {
    "none": None,
    "linear": RopeScaling("linear", 4.0),
    "dynamic": RopeScaling("dynamic", 2.0),
    "llama3": RopeScaling("llama3", 8.0, 1.0, 4.0, 64),
}


@pytest.mark.parametrize("length", [16, 128, 300])
@pytest.mark.parametrize("kind", SCALINGS)
def test_tables_are_those_of_transformers(kind: str, length: int) -> None:
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    from transformers import LlamaConfig

    scaling = SCALINGS[kind]
    config = tiny_decoder(head_dim=HEAD_DIM, rope_scaling=scaling)
    theirs: dict[str, object] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if scaling is not None:
        theirs |= {"rope_type": kind, "factor": scaling.factor}
    if kind == "llama3":
        theirs |= {
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_positions,
        }
    oracle = llama.LlamaRotaryEmbedding(
        LlamaConfig(
            head_dim=HEAD_DIM,
            hidden_size=HEAD_DIM * 4,
            num_attention_heads=4,
            max_position_embeddings=config.max_positions,
            rope_parameters=theirs,
        )
    )
    positions = torch.arange(length)[None]
    cos, sin = oracle(torch.zeros(1, length, HEAD_DIM), positions)
    ours = rotary_tables(config, positions, length)
    torch.testing.assert_close(ours[0][:, 0], cos, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours[1][:, 0], sin, atol=1e-5, rtol=1e-5)


def test_scores_depend_on_distance_alone() -> None:
    config = tiny_decoder(head_dim=HEAD_DIM)
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, HEAD_DIM, dtype=torch.float64)

    def score(at: int, key_at: int) -> torch.Tensor:
        tables = [rotary_tables(config, torch.tensor([[p]]), 1) for p in (at, key_at)]
        return (rotate(q, *tables[0]) * rotate(k, *tables[1])).sum()

    torch.testing.assert_close(score(9, 4), score(65, 60), atol=1e-4, rtol=1e-4)
    assert not torch.isclose(score(9, 4), score(9, 5), atol=1e-2)
    torch.testing.assert_close(score(7, 7), (q * k).sum(), atol=1e-4, rtol=1e-4)


def test_llama3_scaling_needs_its_settings() -> None:
    config = tiny_decoder(rope_scaling=RopeScaling("llama3", 8.0))
    with pytest.raises(ValueError, match="llama3"):
        rotary_tables(config, torch.zeros(1, 1, dtype=torch.int64), 1)


def test_a_packed_document_is_stretched_by_its_own_length_only() -> None:
    config = tiny_config(rope_scaling=RopeScaling("dynamic", 2.0), max_positions=8)
    model = tiny_model(config, dtype=torch.float64)
    long = [[*range(5, 17)], [20, 21], [22, 23, 24]]  # a prefix and two branches, 15 tokens deep
    short = [[30, 31, 32]]
    packed = tiny_batch([[long, short, long]], config)
    alone = {len(document): tiny_batch([[document]], config) for document in (long, short)}
    with torch.no_grad():
        rows = model.hidden(packed)[0]
        whole, small = model.hidden(alone[3])[0], model.hidden(alone[1])[0]
    torch.testing.assert_close(rows, torch.cat([whole, small, whole]), atol=1e-10, rtol=0)


def test_a_padded_row_is_stretched_by_its_whole_length() -> None:
    config = tiny_config(rope_scaling=RopeScaling("dynamic", 2.0), max_positions=8)
    model = tiny_model(config)
    ids = torch.arange(5, 21)[None]
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    with torch.no_grad():
        padded, alone = model(ids, attention_mask=mask).logits, model(ids[:, :4]).logits
        full = model(ids).logits
    torch.testing.assert_close(padded[:, :4], full[:, :4], atol=1e-5, rtol=0)
    assert not torch.allclose(padded[:, :4], alone)
