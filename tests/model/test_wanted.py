"""What the last layer leaves out is what nobody reads; what it computes is the same."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_mono.kernels import use
from torch.utils.flop_counter import FlopCounterMode

from lightning_mono.model.batch import Batch
from lightning_mono.model.cache import KVCache
from lightning_mono.model.wanted import Wanted
from lightning_mono.testing import IMAGE, kernels_here, tiny_batch, tiny_config, tiny_model

MODEL = tiny_model(dtype=torch.float64)
PACKED = [[[[5, *[IMAGE] * 4, 6], [7, 8], [9]], [[10, 11, 12]]], [[[13, *[IMAGE] * 4]]]]


@settings(max_examples=30)
@given(chosen=st.lists(st.integers(0, 23), max_size=8, unique=True))
def test_wanted_rows_are_those_of_the_whole(chosen: list[int]) -> None:
    batch = tiny_batch(PACKED, MODEL.config)
    rows = torch.tensor(sorted(chosen), dtype=torch.int64)
    with torch.no_grad():
        whole = MODEL.hidden(batch).flatten(0, 1)[rows]
        some = MODEL.hidden(batch, wanted=Wanted.of(rows, batch.layout))
    assert some.shape == (1, len(rows), MODEL.config.decoder.hidden_size)
    torch.testing.assert_close(some[0], whole, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kernel", kernels_here())
@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_the_last_column_is_that_of_the_whole(kernel: str, qk_norm: bool, kv_heads: int) -> None:
    model = tiny_model(tiny_config(qk_norm=qk_norm, kv_heads=kv_heads))
    use(model, kernel)
    batch = tiny_batch([[[[5, *[IMAGE] * 4, 6]]], [[[6, 7, 8, 9, 10, 11]]]], model.config)
    with torch.no_grad():
        whole = model.hidden(batch)[:, -1]
        end = model.hidden(batch, wanted=Wanted.last_column(batch.layout))
    torch.testing.assert_close(end[0], whole, atol=1e-5, rtol=0)


def test_a_last_column_may_be_visual() -> None:
    batch = tiny_batch([[[[5, 6, *[IMAGE] * 4]]], [[[6, 7, 8, 9, 10, 11]]]], MODEL.config)
    with torch.no_grad():
        whole = MODEL.hidden(batch)[:, -1]
        end = MODEL.hidden(batch, wanted=Wanted.last_column(batch.layout))
    torch.testing.assert_close(end[0], whole, atol=1e-12, rtol=0)


def test_with_nothing_wanted_keys_and_values_are_kept_all_the_same() -> None:
    batch = tiny_batch([[[[5, *[IMAGE] * 4, 6]]]], MODEL.config)
    caches = [_cache(6) for _ in range(2)]
    with torch.inference_mode():
        MODEL.hidden(batch, cache=caches[0])
        nothing = MODEL.hidden(batch, cache=caches[1], wanted=Wanted.nothing(batch.layout))
    assert nothing.shape == (1, 0, MODEL.config.decoder.hidden_size)
    torch.testing.assert_close(caches[0].keys, caches[1].keys, atol=1e-12, rtol=0)
    torch.testing.assert_close(caches[0].values, caches[1].values, atol=1e-12, rtol=0)


def test_a_watch_is_shown_every_query() -> None:
    batch = tiny_batch([[[[5, *[IMAGE] * 4, 6]]]], MODEL.config)
    seen: list[list[torch.Tensor]] = [[], []]
    with torch.no_grad():
        MODEL.hidden(batch, watch=lambda _, q, k, __: seen[0].append(q))
        wanted = Wanted.last_column(batch.layout)
        MODEL.hidden(batch, wanted=wanted, watch=lambda _, q, k, __: seen[1].append(q))
    for whole, end in zip(*seen, strict=True):
        torch.testing.assert_close(whole, end, atol=1e-12, rtol=0)


@pytest.mark.parametrize("recomputed", [False, True])
def test_gradients_are_those_of_the_whole(recomputed: bool) -> None:
    models = [copy.deepcopy(MODEL), copy.deepcopy(MODEL)]
    batch = tiny_batch(PACKED, MODEL.config)
    for model, wanted in zip(models, (None, batch.wanted), strict=True):
        for layer in model.layers:
            layer.recomputed = recomputed
        hidden = model.hidden(batch, wanted=wanted)
        rows = hidden[0] if wanted else hidden.flatten(0, 1)[batch.predict]
        rows.square().sum().backward()
    for (name, whole), some in zip(
        models[0].named_parameters(), models[1].parameters(), strict=True
    ):
        if whole.grad is None or some.grad is None:
            assert whole.grad is some.grad, name
        else:
            torch.testing.assert_close(some.grad, whole.grad, atol=1e-9, rtol=1e-9, msg=name)


def test_an_expert_that_serves_no_wanted_row_still_gets_a_gradient() -> None:
    """Of zeros: distributed training waits for every parameter that trains."""
    model = copy.deepcopy(MODEL)
    batch = tiny_batch([[[[5, *[IMAGE] * 4, 6]]]], model.config)
    model.hidden(batch, wanted=Wanted.of(torch.tensor([5]), batch.layout)).sum().backward()
    last = model.layers[-1].ffn.visual
    assert all(p.grad is not None and not p.grad.any() for p in last.parameters())


def test_work_is_left_out() -> None:
    batch = tiny_batch([[[[*range(4, 60)]]]], MODEL.config)
    counts = []
    for wanted in (None, Wanted.last_column(batch.layout), Wanted.nothing(batch.layout)):
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            MODEL.hidden(batch, wanted=wanted)
        counts.append(counter.get_total_flops())
    decoder = MODEL.config.decoder
    kv = 2 * decoder.hidden_size * decoder.kv_heads * decoder.head_dim
    queries = 2 * decoder.hidden_size * decoder.heads * decoder.head_dim
    rest = 2 * queries + 2 * 3 * decoder.hidden_size * decoder.ffn_size
    layer = 56 * (2 * kv + rest)
    assert counts[0] == 2 * layer
    assert counts[1] == layer + 56 * 2 * kv + rest
    assert counts[2] == layer + 56 * 2 * kv


def test_moving_keeps_what_is_wanted() -> None:
    batch = tiny_batch(PACKED, MODEL.config)
    moved: Batch = batch.to("cpu")
    assert torch.equal(moved.predict, batch.predict)
    assert moved.wanted.layout.visual.count == batch.wanted.layout.visual.count == 7


def _cache(capacity: int) -> KVCache:
    config = MODEL.config.decoder
    return KVCache(config, 1, capacity, device="cpu", dtype=torch.float64)
