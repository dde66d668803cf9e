"""An answer can be followed from threads, from asyncio, or by being told."""

from __future__ import annotations

import asyncio
import threading

import pytest
import torch

from lightning_mono.engine import Engine, EngineClosed, EngineSettings
from lightning_mono.testing import tiny_model

from .asking import alone, drive, request

MODEL = tiny_model(dtype=torch.float64)
ROOM = EngineSettings(slots=2, capacity=64)


def test_threads_may_ask_and_read() -> None:
    said: dict[int, list[int]] = {}
    with Engine(MODEL, ROOM) as engine:

        def ask(n: int) -> None:
            said[n] = list(engine.submit(request([5 + n, 6, 7])))

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert said == {n: alone(MODEL, request([5 + n, 6, 7])) for n in range(6)}


def test_tasks_may_ask_and_read() -> None:
    async def ask(engine: Engine, n: int) -> list[int]:
        return [id async for id in engine.submit(request([5 + n, 6, 7]))]

    async def all_of_them(engine: Engine) -> list[list[int]]:
        return await asyncio.gather(*(ask(engine, n) for n in range(6)))

    with Engine(MODEL, ROOM) as engine:
        said = asyncio.run(all_of_them(engine))
    assert said == [alone(MODEL, request([5 + n, 6, 7])) for n in range(6)]


def test_a_task_that_is_given_up_leaves_no_listener() -> None:
    async def first_two(engine: Engine) -> list[int]:
        ticket = engine.submit(request([5], max_new_tokens=40))
        said = []
        async for id in ticket:
            said.append(id)
            if len(said) == 2:
                break
        ticket.cancel()
        return said

    with Engine(MODEL, ROOM) as engine:
        assert asyncio.run(first_two(engine)) == alone(MODEL, request([5], max_new_tokens=2))
        assert engine.submit(request([6])).result() == alone(MODEL, request([6]))


def test_a_task_sees_what_went_wrong() -> None:
    async def closed(engine: Engine) -> None:
        ticket = engine.submit(request([5], max_new_tokens=60))
        engine.close()
        async for _ in ticket:
            pass

    with pytest.raises(EngineClosed):
        asyncio.run(closed(Engine(MODEL, ROOM).start()))


def test_listeners_are_told_of_every_id_and_of_the_end() -> None:
    engine = Engine(MODEL, ROOM)
    ticket = engine.submit(request([5], max_new_tokens=3))
    told: list[tuple[int, str | None]] = []
    ticket.add_listener(lambda: told.append((len(ticket.ids), ticket.finish_reason)))
    drive(engine)
    assert told == [(1, None), (2, None), (3, "length")]
    assert ticket.submitted <= (ticket.first_token or 0) <= (ticket.finished or 0)
    assert (ticket.prompt_tokens, ticket.new_tokens, ticket.cached_tokens) == (1, 3, 0)


def test_a_listener_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(MODEL, ROOM)
    tickets = [engine.submit(request([5 + n])) for n in range(2)]
    tickets[0].add_listener(lambda: [][0])
    drive(engine)
    assert [ticket.ids for ticket in tickets] == [alone(MODEL, t.request) for t in tickets]
    assert "a listener failed" in caplog.text


def test_an_answer_may_be_followed_twice_and_when_it_is_over() -> None:
    engine = Engine(MODEL, ROOM)
    ticket = engine.submit(request([5]))
    drive(engine)
    assert list(ticket) == list(ticket) == ticket.result() == alone(MODEL, ticket.request)


def test_a_cancelled_request_frees_its_slot_before_the_next_step() -> None:
    engine = Engine(MODEL, EngineSettings(slots=1, capacity=64))
    first = engine.submit(request([5], max_new_tokens=60))
    second = engine.submit(request([6]))
    for _ in range(3):
        engine.step()
    first.cancel()
    engine.step()
    assert first.finish_reason == "cancelled"
    assert len(second.ids) == 1
    assert list(first) == alone(MODEL, first.request)[:3]
    drive(engine)
    first.cancel()
    second.cancel()
    assert not engine.step()
    assert (second.finish_reason, engine.stats().cancelled) == ("length", 1)


def test_an_idle_engine_drops_what_is_cancelled_while_it_waits() -> None:
    with Engine(MODEL, EngineSettings(slots=1, capacity=64)) as engine:
        tickets = [engine.submit(request([5], max_new_tokens=60)) for _ in range(3)]
        for ticket in reversed(tickets):
            ticket.cancel()
        for ticket in tickets:
            ticket.result()
        assert engine.submit(request([6])).result() == alone(MODEL, request([6]))
