"""Timing contestants in turns, so that whatever else the machine does meets all alike."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch


class Clock(Protocol):
    """Marks points in the work of a device and tells how far apart they lie."""

    def mark(self) -> Any: ...

    def seconds(self, start: Any, end: Any) -> float: ...


class _HostClock:
    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, start: float, end: float) -> float:
        return end - start


class _CudaClock:
    """Marks are events in the stream: the host runs ahead and is not what is measured."""

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def clock_of(device: torch.device) -> Clock:
    """The clock that sees when a device is done."""
    return _CudaClock() if device.type == "cuda" else _HostClock()


def _nothing(_: Any = None) -> None:
    pass


@dataclass(frozen=True)
class Contestant:
    """Something to time.

    Attributes:
        reset: run before each turn, untimed.
        forward: the first part; what it returns is handed to ``backward``.
        backward: the second part.
        after: is handed the same behind each turn, untimed.
    """

    reset: Callable[[], None]
    forward: Callable[[], Any]
    backward: Callable[[Any], None]
    after: Callable[[Any], None] = _nothing


def once(run: Callable[[], Any]) -> Contestant:
    """A contestant of one part."""
    return Contestant(reset=_nothing, forward=run, backward=_nothing)


class Sample(NamedTuple):
    """Seconds of one turn: of the forward part, and of both."""

    forward: float
    both: float


def interleaved(
    contestants: Mapping[str, Contestant],
    rounds: int,
    clock: Clock,
    *,
    warm: bool = False,
    seconds: float = math.inf,
) -> dict[str, list[Sample]]:
    """Times every contestant once a round, in an order drawn anew for each round.

    So nobody always finds in the caches what the same other has left there. A first round is not
    counted: in it memory is mapped and kernels are compiled.

    Args:
        rounds: counted ones, at most.
        warm: they have run already: the first round counts.
        seconds: no round begins that would end later, but for the first that counts.

    Returns:
        Name -> its samples, one a round.
    """
    names = list(contestants)
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    end = time.monotonic() + seconds
    for number in range(int(warm), rounds + 1):
        start = time.monotonic()
        for name in random.Random(number).sample(names, len(names)):
            sample = _turn(contestants[name], clock)
            if number:
                samples[name].append(sample)
        now = time.monotonic()
        if number and now + (now - start) > end:
            break
    return samples


def _turn(contestant: Contestant, clock: Clock) -> Sample:
    contestant.reset()
    start = clock.mark()
    result = contestant.forward()
    middle = clock.mark()
    contestant.backward(result)
    end = clock.mark()
    sample = Sample(clock.seconds(start, middle), clock.seconds(start, end))
    contestant.after(result)
    return sample
