"""Requests that share an engine get the answers that each would get alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mono.backbones.config import RopeScaling
from lightning_mono.engine import Engine, EngineSettings, Request, Ticket, slots
from lightning_mono.model import Batch, ExpertsConfig, MonoModel
from lightning_mono.model.quantised import quantise
from lightning_mono.model.sampling import Sampling
from lightning_mono.testing import tiny_config, tiny_model

from .asking import TILE, alone, drive, request

MODEL = tiny_model(dtype=torch.float64)

words = st.integers(4, 63)
prompts = st.builds(
    lambda before, tiles, middle, more, after: (
        before + TILE * tiles + middle + TILE * more + [after]
    ),
    st.lists(words, max_size=12),
    st.sampled_from([0, 1, 2]),
    st.lists(words, max_size=4),
    st.sampled_from([0, 0, 1]),
    words,
)
samplings = st.sampled_from(
    [Sampling()] * 3
    + [Sampling(1.0), Sampling(0.7, top_p=0.9), Sampling(2.0, top_k=7, repetition_penalty=1.3)]
    + [Sampling(repetition_penalty=1.6)]
)
requests = st.builds(
    request,
    prompts,
    seed=st.integers(0, 2),
    max_new_tokens=st.integers(1, 9),
    sampling=samplings,
    stop_ids=st.lists(words, max_size=12).map(tuple),
    marks=st.lists(st.integers(0, 25), max_size=2).map(tuple),
)


@dataclass
class Arrival:
    """A request, the steps before it comes, and those until it is given up, if it is."""

    request: Request
    after: int
    patience: int | None


arrivals = st.builds(
    Arrival, requests, st.integers(0, 6), st.sampled_from([None, None, None, 0, 1, 4, 9])
)


@settings(max_examples=60)
@given(
    schedule=st.lists(arrivals, min_size=1, max_size=8),
    rows=st.integers(1, 4),
    chunk=st.integers(2, 16),
    block=st.integers(1, 16),
    prefix=st.sampled_from([0, 3000, 10**6]),
    a_call=st.sampled_from([0, 10, 1000]),
)
def test_any_schedule_gives_each_request_its_own_answer(
    schedule: list[Arrival], rows: int, chunk: int, block: int, prefix: int, a_call: int
) -> None:
    room = EngineSettings(
        rows, capacity=64, chunk=chunk, block=min(block, chunk), prefix_bytes=prefix
    )
    engine = Engine(MODEL, room)
    engine._running.a_call = a_call
    tickets: list[tuple[Ticket, Arrival]] = []
    left = [arrival.after for arrival in schedule]
    ages: dict[int, int] = {}
    todo = list(schedule)
    busy = True
    while busy or todo:
        if todo and left[len(schedule) - len(todo)] <= 0:
            arrival = todo.pop(0)
            tickets.append((engine.submit(arrival.request), arrival))
            busy = True
            continue
        if todo:
            left[len(schedule) - len(todo)] -= 1
        for number, (ticket, arrival) in enumerate(tickets):
            if ages.get(number, 0) == arrival.patience:
                ticket.cancel()
            ages[number] = ages.get(number, 0) + 1
        busy = engine.step()
    for ticket, arrival in tickets:
        own = alone(MODEL, arrival.request)
        if ticket.finish_reason == "cancelled":
            assert arrival.patience is not None
            assert ticket.ids == own[: len(ticket.ids)]
            continue
        assert ticket.ids == own
        stopped = own[-1] in arrival.request.stop_ids
        assert ticket.finish_reason == ("stop" if stopped else "length")
    stats = engine.stats()
    assert stats.running == stats.reading == stats.waiting == stats.failed == 0
    assert stats.finished + stats.cancelled == len(schedule)
    assert stats.prefix_bytes <= prefix


def test_a_text_model_serves_too() -> None:
    config = replace(tiny_config(ExpertsConfig()), patchifier=None, image_context_id=None)
    model = tiny_model(config, dtype=torch.float64)
    engine = Engine(model, EngineSettings(slots=2, capacity=32))
    tickets = [engine.submit(request([5 + n, 6, 7])) for n in range(3)]
    drive(engine)
    assert [ticket.ids for ticket in tickets] == [alone(model, t.request) for t in tickets]


@pytest.mark.parametrize("scheme", ["nf4", "int8"])
def test_a_model_with_text_weights_of_few_bits_serves_too(scheme: str) -> None:
    model = tiny_model(dtype=torch.float64)
    quantise(model, scheme)
    engine = Engine(model, EngineSettings(slots=3, capacity=32, prefix_bytes=10**6))
    tickets = [engine.submit(request([5 + n, *TILE, 6, 7])) for n in range(4)]
    drive(engine)
    assert [ticket.ids for ticket in tickets] == [alone(model, t.request) for t in tickets]


@pytest.mark.parametrize("factor", [2.0, 8.0])
def test_frequencies_that_depend_on_the_length_are_those_of_each_request(factor: float) -> None:
    """Prompts and answers on either side of the length at which dynamic scaling sets in."""
    scaling = RopeScaling("dynamic", factor)
    model = tiny_model(tiny_config(rope_scaling=scaling, max_positions=12), dtype=torch.float64)
    room = EngineSettings(slots=4, capacity=64, chunk=6, block=3, prefix_bytes=10**6)
    engine = Engine(model, room)
    prompts = [list(range(5, 5 + n)) for n in (4, 7, 11, 12, 13, 20)]
    tickets = [engine.submit(request([*p, *TILE, 9], max_new_tokens=12)) for p in prompts * 2]
    drive(engine)
    assert [ticket.ids for ticket in tickets] == [alone(model, t.request) for t in tickets]
    assert engine.stats().cached_tokens > 0


def test_answers_under_way_go_on_while_a_long_prompt_is_read() -> None:
    engine = Engine(MODEL, EngineSettings(slots=2, capacity=64, chunk=4, block=4))
    short = engine.submit(request([5], max_new_tokens=40))
    engine.step()
    long = engine.submit(request(list(range(4, 34))))
    grown = []
    while not long.ids:
        engine.step()
        grown.append(len(short.ids))
    assert engine.stats().passes == 1 + 8
    assert grown[-1] - 1 == 8, "a token before each pass"


def test_a_long_row_is_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []
    whole = slots.attend

    def spy(q: torch.Tensor, k: torch.Tensor, *rest: Any) -> torch.Tensor:
        read.append((k.shape[0], k.shape[2]))
        return whole(q, k, *rest)

    monkeypatch.setattr(slots, "attend", spy)
    engine = Engine(MODEL, EngineSettings(slots=4, capacity=1024))
    for ids in ([5] * 3, [6] * 900, [7] * 8, [8] * 4):
        engine.submit(request(ids, max_new_tokens=20))
    while engine.stats().running < 4:
        engine.step()
    read.clear()
    engine.step()
    by_rows = sorted(read[: len(read) // 2])
    assert [rows for rows, _ in by_rows] == [1, 1, 2]
    assert sum(rows * columns for rows, columns in by_rows) < 950


def test_memory_is_taken_once() -> None:
    engine = Engine(MODEL, EngineSettings(slots=3, capacity=32))
    places = engine._slots.keys.data_ptr(), engine._slots.values.data_ptr()
    assert engine.stats().slot_bytes == 2 * 8 * (2 * 3 * 2 * 32 * 4)
    for count in (1, 3, 7):
        for n in range(count):
            engine.submit(request([5 + n, 6]))
        drive(engine)
        assert places == (engine._slots.keys.data_ptr(), engine._slots.values.data_ptr())


def test_a_step_runs_the_model_once_for_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    hidden = MonoModel.hidden

    def spy(self: MonoModel, batch: Batch, **kwargs: Any) -> torch.Tensor:
        seen.append(tuple(batch.input_ids.shape))
        return hidden(self, batch, **kwargs)

    monkeypatch.setattr(MonoModel, "hidden", spy)
    engine = Engine(MODEL, EngineSettings(slots=4, capacity=32))
    for n in range(4):
        engine.submit(request([5 + n] * (n + 1), max_new_tokens=8))
    drive(engine)
    assert [shape for shape in seen if shape[1] > 1] == [(1, 2), (1, 3), (1, 4)]
    assert [len for len, width in seen if width == 1][:1] == [1]
    assert max(seen) == (4, 1)
    assert len(seen) == 4 + 3 + 7, "prompts, steps until the last has joined, then all at once"
