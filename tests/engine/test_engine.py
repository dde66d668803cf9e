"""Requests that share an engine get the answers that each would get alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mono.engine import Engine, EngineSettings, Request, Ticket
from lightning_mono.model import MonoModel
from lightning_mono.model.sampling import Sampling
from lightning_mono.testing import IMAGE, tiny_config, tiny_model

MODEL = tiny_model(dtype=torch.float64)
TILE = [IMAGE] * 4


def alone(model: MonoModel, request: Request) -> list[int]:
    """What a session of its own says to a request."""
    sampling = request.sampling
    tiles = request.pixel_values
    steps = model.session().stream(
        torch.from_numpy(request.input_ids)[None],
        None if tiles is None or not len(tiles) else torch.from_numpy(tiles),
        max_new_tokens=request.max_new_tokens,
        stop_ids=request.stop_ids,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        repetition_penalty=sampling.repetition_penalty,
        seed=request.seed,
    )
    return [int(step[0]) for step in steps]


def drive(engine: Engine) -> None:
    while engine.step():
        pass


def request(ids: list[int], *, seed: int = 0, **changes: object) -> Request:
    """A request with random tiles for its image tokens."""
    tiles = np.random.default_rng(seed).standard_normal((ids.count(IMAGE) // 4, 3, 16, 16))
    settings = {"max_new_tokens": 5, "seed": seed, **changes}
    return Request(np.array(ids), tiles.astype(np.float32), **settings)  # type: ignore[arg-type]


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
    slots=st.integers(1, 4),
    chunk=st.integers(2, 16),
    block=st.integers(1, 16),
    prefix=st.sampled_from([0, 3000, 10**6]),
)
def test_any_schedule_gives_each_request_its_own_answer(
    schedule: list[Arrival], slots: int, chunk: int, block: int, prefix: int
) -> None:
    room = EngineSettings(
        slots, capacity=64, chunk=chunk, block=min(block, chunk), prefix_bytes=prefix
    )
    engine = Engine(MODEL, room)
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
    model = tiny_model(tiny_config(), dtype=torch.float64)
    engine = Engine(model, EngineSettings(slots=2, capacity=32))
    tickets = [engine.submit(request([5 + n, 6, 7])) for n in range(3)]
    drive(engine)
    for ticket in tickets:
        assert ticket.ids == alone(model, ticket.request)


@pytest.mark.parametrize("seed", [0, 1])
def test_threads_may_ask_and_read(seed: int) -> None:
    with Engine(MODEL, EngineSettings(slots=2, capacity=32)) as engine:
        tickets = [engine.submit(request([5 + n, 6, 7], seed=seed)) for n in range(5)]
        assert [list(ticket) for ticket in tickets] == [alone(MODEL, t.request) for t in tickets]
