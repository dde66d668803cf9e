"""Where the time of a turn goes, by operator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity

from lightning_mono.bench.timing import Contestant

TOP = 15
"""Operators that are shown; the rest is summed up."""

REST = "(all others)"


@dataclass(frozen=True)
class Operator:
    """One operator of PyTorch's, in one turn.

    Attributes:
        share: of the turn's time, without what it calls.
        calls: how many.
    """

    name: str
    share: float
    calls: int


def profiled(contestant: Contestant, device: torch.device) -> list[Operator]:
    """Runs a turn under PyTorch's profiler: operators by share, the greatest first."""
    activities = [ProfilerActivity.CPU]
    kind = "cpu"
    if device.type == "cuda":
        activities, kind = [*activities, ProfilerActivity.CUDA], "device"
    contestant.reset()
    with torch.profiler.profile(activities=activities) as profile:
        contestant.backward(contestant.forward())
    times = {
        event.key: (getattr(event, f"self_{kind}_time_total"), event.count)
        for event in profile.key_averages()
    }
    total = sum(time for time, _ in times.values())
    ranked = sorted(times.items(), key=lambda item: -item[1][0])
    shown = [Operator(name, time / total, calls) for name, (time, calls) in ranked[:TOP]]
    rest = [counted for _, counted in ranked[TOP:]]
    if rest:
        share = sum(time for time, _ in rest) / total
        shown.append(Operator(REST, share, sum(calls for _, calls in rest)))
    return shown
