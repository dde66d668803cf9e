"""How near each kernel comes to the bare matrix products of an FFN, and to what memory allows."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lightning_mono.bench.cases import Case
from lightning_mono.bench.contestants import COPIES, LIMIT, line_up
from lightning_mono.bench.roofline import Gauge, Machine, Work, backward, forward
from lightning_mono.bench.timing import Sample, clock_of, interleaved
from lightning_mono.kernels import KERNELS, choose, why_not

ORACLE = "masked_dense"


@dataclass(frozen=True)
class Result:
    """One contestant in one case; ``both`` is forward and backward together.

    Attributes:
        forward_s, both_s: medians over the rounds, in seconds.
        forward_to_limit, both_to_limit: times the limit's; medians of what each round gave.
        forward_speedup, both_speedup: times faster than masked_dense, where that ran.
        forward_roofline, both_roofline: share reached of the best that roofline allows.
        samples: seconds of each round, forward and both.
    """

    kernel: str
    forward_s: float
    both_s: float
    forward_to_limit: float
    both_to_limit: float
    forward_speedup: float | None
    both_speedup: float | None
    forward_roofline: float
    both_roofline: float
    samples: list[Sample]


@dataclass(frozen=True)
class Measured:
    """One case: what it must do, and what came out.

    Attributes:
        copies: share of copies in the time of ``gathered``, forward and backward, where it ran.
    """

    case: Case
    forward: Work
    backward: Work
    results: list[Result]
    copies: float | None


@dataclass(frozen=True)
class Report:
    """A whole run.

    Attributes:
        device: its name.
        threads: of the host.
        load: of the host as the run began, in waiting or running processes.
        machine: the best product and copy of the run.
        skipped: kernels that cannot run here -> why.
    """

    device: str
    dtype: str
    torch: str
    threads: int
    load: float
    rounds: int
    machine: Machine
    skipped: dict[str, str]
    cases: list[Measured]

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists; a case says how many visual tokens and runs it came to."""
        plain = asdict(self)
        for written, measured in zip(plain["cases"], self.cases, strict=True):
            case = measured.case
            written["case"] |= {"shape": case.shape._asdict()}
            written["case"] |= {"visual_tokens": case.visual, "visual_runs": case.runs}
        return plain


def available(device: torch.device, dtype: torch.dtype) -> tuple[list[str], dict[str, str]]:
    """Kernels that run on a device; and those that do not, with the reason."""
    reasons = {name: why_not(name, device, dtype) for name in KERNELS}
    for name in reasons:
        if name.startswith("triton") and device.type != "cuda" and reasons[name] is None:
            reasons[name] = "Triton's interpreter is not worth timing; it needs a CUDA GPU"
    skipped = {name: reason for name, reason in reasons.items() if reason is not None}
    return [name for name in KERNELS if name not in skipped], skipped


def bench(
    cases: Sequence[Case],
    *,
    kernels: Sequence[str] = (),
    device: torch.device,
    dtype: torch.dtype,
    rounds: int,
    progress: Callable[[Sequence[Case]], Any] = iter,
) -> Report:
    """Times kernels and the limit, in turns within each case.

    Args:
        kernels: their names; by default all that run there.
        rounds: counted turns of each contestant in each case.
        progress: wraps the cases, as tqdm does.

    Raises:
        RecipeError: a kernel that was asked for does not exist, or cannot run there.
    """
    names, skipped = available(device, dtype)
    if kernels:
        names, skipped = [choose(name, device=device, dtype=dtype) for name in kernels], {}
    load = os.getloadavg()[0]
    gauge, timed = Gauge(device, dtype), []
    for case in progress(cases):
        gauge.measure()
        line = line_up(case, names, device, dtype)
        timed.append(interleaved(line, rounds, clock_of(device)))
    gauge.measure()
    return Report(
        device=device_name(device),
        dtype=str(dtype).removeprefix("torch."),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        load=load,
        rounds=rounds,
        machine=gauge.machine,
        skipped=skipped,
        cases=[
            _measured(case, samples, gauge.machine, dtype.itemsize)
            for case, samples in zip(cases, timed, strict=True)
        ],
    )


def _measured(
    case: Case, samples: dict[str, list[Sample]], machine: Machine, item: int
) -> Measured:
    ahead, back = forward(case, item), backward(case, item)
    floors = machine.floor(ahead), machine.floor(ahead) + machine.floor(back)
    results = [_result(name, samples, floors) for name in samples if name != COPIES]
    copies = _ratios(samples[COPIES], samples["gathered"])[1] if COPIES in samples else None
    return Measured(case, ahead, back, results, copies)


def _result(name: str, samples: dict[str, list[Sample]], floors: tuple[float, float]) -> Result:
    own = samples[name]
    ahead, both = (median(column) for column in zip(*own, strict=True))
    to_limit = _ratios(own, samples[LIMIT])
    speedup = _ratios(samples[ORACLE], own) if ORACLE in samples else (None, None)
    return Result(
        kernel=name,
        forward_s=ahead,
        both_s=both,
        forward_to_limit=to_limit[0],
        both_to_limit=to_limit[1],
        forward_speedup=speedup[0],
        both_speedup=speedup[1],
        forward_roofline=floors[0] / ahead,
        both_roofline=floors[1] / both,
        samples=own,
    )


def _ratios(ours: list[Sample], theirs: list[Sample]) -> tuple[float, float]:
    """Medians of the ratios within a round, of forward and of both.

    A round that something else slowed down slows both of its numbers.
    """
    pairs = list(zip(ours, theirs, strict=True))
    ahead = median(one.forward / other.forward for one, other in pairs)
    return ahead, median(one.both / other.both for one, other in pairs)


def device_name(device: torch.device) -> str:
    """What the maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()
