"""What goes wrong ends what it concerns, says so, and leaves the rest as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lightning_mono.engine import (
    Engine,
    EngineClosed,
    EngineError,
    EngineFull,
    EngineSettings,
    Request,
    RequestRefused,
    RequestTooLong,
)
from lightning_mono.model import Batch, MonoModel
from lightning_mono.model.sampling import Sampling
from lightning_mono.testing import tiny_model

from .asking import TILE, alone, drive, request

ROOM = EngineSettings(slots=3, capacity=32, chunk=4, block=4, queue=4)
POISON = 63


def _poisoned() -> MonoModel:
    """A model in which one word is not a number."""
    model = tiny_model(dtype=torch.float64)
    model.embed.weight.data[POISON] = float("nan")
    assert model.head is not None
    model.head.weight.data[POISON] = 0
    return model


MODEL = _poisoned()


@pytest.fixture
def engine() -> Engine:
    return Engine(MODEL, ROOM)


# -- requests that cannot be answered -------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Request(np.array([], dtype=np.int64)), "at least one"),
        (Request(np.array([[5]])), r"shape \(1, 1\)"),
        (Request(np.array([5, 64])), "from 0 to 63; they reach from 5 to 64"),
        (Request(np.array([-1])), "from 0 to 63"),
        (Request(np.array([5]), max_new_tokens=0), "max_new_tokens must be at least 1"),
        (Request(np.array([5, *TILE])), "4 image tokens in the prompt, but the tiles make 0"),
        (request([5, *TILE[:3]]), "3 image tokens"),
        (Request(np.array([5]), np.zeros((1, 3, 16, 16), np.float32)), "the tiles make 4"),
        (Request(np.array(TILE), np.zeros((1, 3, 15, 16), np.float32)), "another size that 8"),
        (Request(np.array(TILE), np.full((1, 3, 16, 16), np.nan, np.float32)), "NaN or infinity"),
        (Request(np.array([*TILE[:2], 5, *TILE[:2]]), np.zeros((1, 3, 16, 16))), "in runs of 4"),
    ],
)
def test_a_request_that_cannot_be_read_is_refused(
    engine: Engine, asked: Request, said: str
) -> None:
    if asked.max_new_tokens:
        asked = replace(asked, max_new_tokens=1)
    with pytest.raises(RequestRefused, match=said):
        engine.submit(asked)
    assert not engine.step()


def test_a_request_that_does_not_fit_is_refused(engine: Engine) -> None:
    with pytest.raises(RequestTooLong, match=r"28 tokens of the prompt and 5 new ones .* 32"):
        engine.submit(request([5] * 28))
    ticket = engine.submit(request([5] * 27))
    drive(engine)
    assert ticket.ids == alone(MODEL, ticket.request)


def test_a_full_queue_refuses_and_takes_again(engine: Engine) -> None:
    for n in range(4):
        engine.submit(request([5 + n]))
    with pytest.raises(EngineFull, match="4 requests wait"):
        engine.submit(request([9]))
    engine.step()
    ticket = engine.submit(request([9]))
    drive(engine)
    assert ticket.ids == alone(MODEL, ticket.request)


@pytest.mark.parametrize("changes", [{"slots": 0}, {"block": 5000}, {"prefix_bytes": -1}])
def test_settings_that_make_no_sense_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        EngineSettings(**changes)


def test_slots_that_no_memory_holds_are_refused() -> None:
    said = r"4 slots of 1000000000000000 tokens take .* GiB, more than there is"
    with pytest.raises(EngineError, match=said):
        Engine(MODEL, EngineSettings(slots=4, capacity=10**15))


# -- steps that fail ------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 3, 9])
def test_logits_that_are_not_finite_end_that_request_alone(engine: Engine, at: int) -> None:
    before = engine.submit(request([5, 6, 7], max_new_tokens=20))
    engine.step()
    words = [8] * 10
    words[at] = POISON
    bad, sampled = engine.submit(request(words)), engine.submit(request([9]))
    drive(engine)
    after = [engine.submit(request([5 + n] * (n + 1), max_new_tokens=20)) for n in range(3)]
    drive(engine)
    assert (bad.finish_reason, bad.ids) == ("error", [])
    with pytest.raises(EngineError, match="not finite"):
        list(bad)
    for good in (before, sampled, *after):
        assert good.ids == alone(MODEL, good.request)
    assert engine.stats().failed == 1


def test_a_token_that_is_not_a_number_ends_its_row_in_the_midst_of_others(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the row was about to say: its logits turn to NaN at the third step."""
    logits = MonoModel.logits

    def poisoned(model: MonoModel, hidden: torch.Tensor) -> torch.Tensor:
        given = logits(model, hidden)
        if engine.stats().steps == 4:
            given[1] = float("nan")
        return given

    monkeypatch.setattr(MonoModel, "logits", poisoned)
    samplings = [Sampling(), Sampling(1.0), Sampling(1.0, repetition_penalty=1.2)]
    tickets = [
        engine.submit(request([5 + n], max_new_tokens=12, sampling=sampling))
        for n, sampling in enumerate(samplings)
    ]
    drive(engine)
    monkeypatch.undo()
    reasons = [ticket.finish_reason for ticket in tickets]
    assert reasons == ["length", "error", "length"]
    own = [alone(MODEL, ticket.request) for ticket in tickets]
    assert [tickets[0].ids, tickets[2].ids] == [own[0], own[2]]
    assert tickets[1].ids == own[1][: len(tickets[1].ids)]


class Failing:
    """Makes the model fail on batches that `when` picks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.when: Any = lambda batch: False
        hidden = MonoModel.hidden

        def maybe(model: MonoModel, batch: Batch, **kwargs: Any) -> torch.Tensor:
            given = hidden(model, batch, **kwargs)
            if self.when(batch):
                raise RuntimeError("out of memory")
            return given

        monkeypatch.setattr(MonoModel, "hidden", maybe)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    return Failing(monkeypatch)


def test_a_prompt_that_fails_ends_alone(engine: Engine, failing: Failing) -> None:
    good = engine.submit(request([5, 6, 7], max_new_tokens=20))
    failing.when = lambda batch: 33 in batch.input_ids and batch.input_ids.shape[1] > 1
    bad = engine.submit(request([8, 9, 10, 11, 12, 33, 14]))
    drive(engine)
    failing.when = lambda batch: False
    assert good.ids == alone(MODEL, good.request)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(bad)


def test_a_step_that_fails_ends_all_running_and_no_others(engine: Engine, failing: Failing) -> None:
    running = [engine.submit(request([5 + n], max_new_tokens=20)) for n in range(2)]
    for _ in range(5):
        engine.step()
    reading = engine.submit(request(list(range(10, 24))))
    waiting = engine.submit(request([9]))
    engine.step()
    failing.when = lambda batch: batch.input_ids.shape[1] == 1
    while running[0].finish_reason is None:
        engine.step()
    failing.when = lambda batch: False
    drive(engine)
    assert [ticket.finish_reason for ticket in running] == ["error", "error"]
    for ticket in (reading, waiting):
        assert ticket.ids == alone(MODEL, ticket.request)


def test_the_thread_outlives_what_goes_wrong(failing: Failing) -> None:
    with Engine(MODEL, ROOM) as engine:
        failing.when = lambda batch: True
        with pytest.raises(RuntimeError, match="out of memory"):
            engine.submit(request([5])).result()
        failing.when = lambda batch: False
        assert engine.submit(request([5])).result() == alone(MODEL, request([5]))


# -- closing --------------------------------------------------------------------------------


def test_closing_ends_what_is_under_way_and_refuses_more(engine: Engine) -> None:
    tickets = [engine.submit(request([5] * 6, max_new_tokens=20)) for _ in range(4)]
    for _ in range(4):
        engine.step()
    engine.close()
    engine.close()
    for ticket in tickets:
        with pytest.raises(EngineClosed, match="before the answer was whole"):
            list(ticket)
    with pytest.raises(EngineClosed, match="takes no requests"):
        engine.submit(request([5]))
    with pytest.raises(EngineError, match="once"):
        engine.start()
    stats = engine.stats()
    assert (stats.running, stats.reading, stats.waiting, stats.failed) == (0, 0, 0, 4)
