"""Contestants take turns; a sample holds its own turn and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from lightning_mono.bench.timing import Contestant, Sample, clock_of, interleaved


class _Steps:
    """A clock that the contestants move."""

    def __init__(self) -> None:
        self.now = 0.0

    def mark(self) -> float:
        return self.now

    def seconds(self, start: float, end: float) -> float:
        return end - start


def _contestant(name: str, clock: _Steps, log: list[str], takes: tuple[float, float]) -> Contestant:
    def spend(part: str, seconds: float) -> str:
        clock.now += seconds
        log.append(f"{name} {part}")
        return name

    def backward(result: str) -> None:
        assert result == name
        spend("backward", takes[1])

    forward: Callable[[], str] = lambda: spend("forward", takes[0])  # noqa: E731
    return Contestant(lambda: spend("reset", 100.0) and None, forward, backward)


def test_every_round_times_everyone_once_in_another_order() -> None:
    clock, log = _Steps(), []
    takes = {"a": (1.0, 2.0), "b": (3.0, 4.0), "c": (5.0, 6.0)}
    line = {name: _contestant(name, clock, log, own) for name, own in takes.items()}
    samples = interleaved(line, 30, clock)
    assert samples == {name: [Sample(f, f + b)] * 30 for name, (f, b) in takes.items()}
    turns = "".join(entry[0] for entry in log if entry.endswith("reset"))
    rounds = [turns[at : at + 3] for at in range(0, len(turns), 3)]
    assert len(rounds) == 31
    assert set(rounds) == {"abc", "acb", "bac", "bca", "cab", "cba"}
    assert {entry[2:] for entry in log[0::3]} == {"reset"}
    assert {entry[2:] for entry in log[2::3]} == {"backward"}


def test_the_first_round_does_not_count() -> None:
    clock = _Steps()
    slow_once = iter([50.0, 1.0, 1.0])

    def forward() -> None:
        clock.now += next(slow_once)

    line = {"a": Contestant(lambda: None, forward, lambda _: None)}
    assert interleaved(line, 2, clock) == {"a": [Sample(1.0, 1.0)] * 2}


def test_warm_contestants_have_no_round_that_does_not_count() -> None:
    clock, log = _Steps(), []
    line = {"a": _contestant("a", clock, log, (1.0, 2.0))}
    assert interleaved(line, 2, clock, warm=True) == {"a": [Sample(1.0, 3.0)] * 2}
    assert len(log) == 2 * 3


def test_one_round_counts_however_little_time_there_is() -> None:
    clock, log = _Steps(), []
    line = {"a": _contestant("a", clock, log, (1.0, 2.0))}
    assert interleaved(line, 9, clock, seconds=0.0) == {"a": [Sample(1.0, 3.0)]}


def test_what_comes_after_a_turn_is_not_timed() -> None:
    clock, seen = _Steps(), []

    def after(result: object) -> None:
        clock.now += 50.0
        seen.append(result)

    line = {"a": replace(_contestant("a", clock, [], (1.0, 2.0)), after=after)}
    assert interleaved(line, 2, clock) == {"a": [Sample(1.0, 3.0)] * 2}
    assert seen == ["a"] * 3


def test_the_clock_of_the_host_goes_forward() -> None:
    clock = clock_of(torch.device("cpu"))
    start = clock.mark()
    assert 0 <= clock.seconds(start, clock.mark()) < 60
