"""What was read before is not read again, and nothing comes out differently for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mono.engine import Engine, EngineSettings, Request
from lightning_mono.engine.prefix import PrefixCache
from lightning_mono.model import Batch, MonoModel
from lightning_mono.testing import tiny_model

from .asking import TILE, alone, drive, request

MODEL = tiny_model()
ROOM: dict[str, int] = {"slots": 2, "capacity": 128, "chunk": 16, "block": 4}
SYSTEM = list(range(10, 31))


class Seen:
    """What the model was shown and what it gave, pass by pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.logits: list[torch.Tensor] = []
        self.read: list[int] = []
        self.tiles = 0
        hidden, logits = MonoModel.hidden, MonoModel.logits

        def spy_hidden(model: MonoModel, batch: Batch, **kwargs: Any) -> torch.Tensor:
            self.read += batch.input_ids[0].tolist()
            self.tiles += len(batch.pixel_values)
            return hidden(model, batch, **kwargs)

        def spy_logits(model: MonoModel, x: torch.Tensor) -> torch.Tensor:
            self.logits.append(logits(model, x))
            return self.logits[-1]

        monkeypatch.setattr(MonoModel, "hidden", spy_hidden)
        monkeypatch.setattr(MonoModel, "logits", spy_logits)

    def take(self) -> Seen:
        """What was seen since the last time."""
        taken = object.__new__(Seen)
        taken.logits, taken.read, taken.tiles = self.logits, self.read, self.tiles
        self.logits, self.read, self.tiles = [], [], 0
        return taken


def _ask(engine: Engine, asked: Request) -> list[int]:
    ticket = engine.submit(asked)
    drive(engine)
    return list(ticket)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_the_same_to_the_last_bit(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(dtype=dtype)
    seen = Seen(monkeypatch)
    engine = Engine(model, EngineSettings(**ROOM, prefix_bytes=10**7))
    asked = [
        request([*SYSTEM, *TILE, *TILE, 5, 6, 7]),
        request([*SYSTEM, *TILE, *TILE, 8]),
        request([*SYSTEM, 9, 9, 9]),
        request([*SYSTEM, *TILE, *TILE, 5, 6, 7]),
    ]
    for each in asked:
        found = engine.stats().cached_tokens
        said, ours = _ask(engine, each), seen.take()
        without = Engine(model, EngineSettings(**ROOM))
        assert said == _ask(without, each)
        theirs = seen.take()
        assert len(ours.logits) == len(theirs.logits) == 5
        assert all(torch.equal(a, b) for a, b in zip(ours.logits, theirs.logits, strict=True))
        assert len(theirs.read) - len(ours.read) == engine.stats().cached_tokens - found
    assert engine.stats().cached_tokens == 0 + 29 + 16 + 29


parts = st.one_of(st.lists(st.integers(4, 6), min_size=1, max_size=9), st.just(TILE))
grown = st.lists(st.tuples(st.lists(parts, min_size=1, max_size=3), st.integers(0, 9)), max_size=6)


@settings(max_examples=30)
@given(grown=grown, chunk=st.integers(4, 16), block=st.integers(1, 4))
def test_whatever_was_read_before_logits_are_the_same_to_the_last_bit(
    grown: list[tuple[list[list[int]], int]], chunk: int, block: int
) -> None:
    """Prompts that each go on from a part of the one before, ends of which are marked."""
    room = {**ROOM, "slots": 1, "chunk": chunk, "block": block, "capacity": 256}
    with pytest.MonkeyPatch.context() as patch:
        seen = Seen(patch)
        engine = Engine(MODEL, EngineSettings(**room, prefix_bytes=10**7))
        before: list[list[int]] = []
        for more, kept in grown:
            before = [*before[:kept], *more]
            ends = np.cumsum([len(part) for part in before])
            asked = request([i for part in before for i in part] + [7], marks=tuple(ends.tolist()))
            _ask(engine, asked)
            ours = seen.take()
            _ask(Engine(MODEL, EngineSettings(**room)), asked)
            theirs = seen.take()
            assert len(ours.logits) == len(theirs.logits)
            assert all(torch.equal(a, b) for a, b in zip(ours.logits, theirs.logits, strict=True))


def test_an_image_asked_about_again_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch)
    engine = Engine(MODEL, EngineSettings(**ROOM, prefix_bytes=10**7))
    _ask(engine, request([5, *TILE, *TILE, 6, 7], max_new_tokens=1))
    assert seen.take().tiles == 2
    ticket = engine.submit(request([5, *TILE, *TILE, 8, 9, 10], max_new_tokens=1))
    drive(engine)
    again = seen.take()
    assert again.tiles == 0
    assert again.read == [8, 9, 10]
    assert ticket.cached_tokens == 9
    assert ticket.ids == alone(MODEL, ticket.request)


def test_other_pixels_other_words_or_another_order_find_nothing() -> None:
    engine = Engine(MODEL, EngineSettings(**ROOM, prefix_bytes=10**7))
    _ask(engine, request([5, *TILE, 6, *TILE, 7]))
    for other in (
        request([5, *TILE, 6, *TILE, 7], seed=1),
        request([4, *TILE, 6, *TILE, 7]),
        request([*TILE, 5, 6, *TILE, 7]),
        request([5, *TILE, *TILE, 6, 7]),
    ):
        ticket = engine.submit(other)
        drive(engine)
        assert ticket.cached_tokens == 0
        assert ticket.ids == alone(MODEL, other)


def test_two_who_ask_at_once_about_one_image_read_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch)
    engine = Engine(MODEL, EngineSettings(**ROOM, prefix_bytes=10**7))
    tickets = [engine.submit(request([5, *TILE, 6 + n])) for n in range(4)]
    drive(engine)
    assert seen.tiles == 1
    assert [ticket.cached_tokens for ticket in tickets] == [0, 5, 5, 5]


def test_a_marked_beginning_is_found_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system message, then a conversation that goes on behind its first prompt."""
    seen = Seen(monkeypatch)
    engine = Engine(MODEL, EngineSettings(**ROOM, prefix_bytes=10**7))
    system, first = SYSTEM, [*SYSTEM, *TILE, 5, 6]
    _ask(engine, request(first, max_new_tokens=1, marks=(len(system),)))
    seen.take()
    other = request([*system, 9, 9], max_new_tokens=1, marks=(len(system),))
    assert _ask(engine, other) == alone(MODEL, other)
    assert seen.take().read[:2] == [9, 9]
    further = request([*first, 7, 8, 9], max_new_tokens=1, marks=(len(system), len(first)))
    assert _ask(engine, further) == alone(MODEL, further)
    assert seen.take().read[:3] == [7, 8, 9]


def test_what_was_read_last_is_kept_and_the_bound_holds() -> None:
    a_token = 2 * 2 * 2 * 4 * 4  # keys and values, layers, heads, channels, bytes
    most = 3 * (1 + 4 + 1) * a_token
    engine = Engine(MODEL, EngineSettings(**ROOM, prefix_bytes=most))
    for seed in (0, 1, 2, 0, 3):  # 0 is asked about again, so 1 goes for 3
        _ask(engine, request([5, *TILE, 6], seed=seed))
        assert engine.stats().prefix_bytes <= most
    assert engine.stats().prefix_pieces == 6
    found = []
    for seed in (0, 2, 3, 1):
        ticket = engine.submit(request([5, *TILE, 6], seed=seed))
        drive(engine)
        found.append(ticket.cached_tokens)
    assert found == [5, 5, 5, 0]


def test_a_piece_found_behind_one_that_is_gone_is_used() -> None:
    engine = Engine(MODEL, EngineSettings(**ROOM, prefix_bytes=10**7))
    asked = request([*SYSTEM, *TILE, 5])
    _ask(engine, asked)
    engine._reader.prefix._kept.popitem()  # the first piece of a prompt is the one used last
    ticket = engine.submit(asked)
    drive(engine)
    assert ticket.cached_tokens == len(SYSTEM) + 4 - 4
    assert ticket.ids == alone(MODEL, asked)


operations = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 6)), max_size=30)


@settings(max_examples=50)
@given(operations=operations, most=st.integers(0, 600))
def test_the_cache_holds_what_was_used_last_within_its_bound(
    operations: list[tuple[int, int]], most: int
) -> None:
    cache = PrefixCache(most)
    model: dict[bytes, int] = {}  # in order of use
    for name, tokens in operations:
        key, size = bytes([name]), 2 * 4 * tokens * 2
        if cache.get(key) is not None:
            assert key in model
            model[key] = model.pop(key)
            continue
        assert key not in model
        cache.put(key, torch.zeros(1, 1, tokens, 4).half(), torch.zeros(1, 1, tokens, 4).half())
        if size <= most:
            while sum(model.values()) + size > most:
                model.pop(next(iter(model)))
            model[key] = size
        assert list(cache._kept) == list(model)
        assert cache.nbytes == sum(model.values()) <= most
