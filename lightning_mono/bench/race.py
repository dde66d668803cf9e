"""A benchmark of models: contestants on the same prompts in turns, held against floors."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_mono.bench.kernels import device_name
from lightning_mono.bench.memory import Peak
from lightning_mono.bench.names import OURS, TRANSFORMERS, TWIN
from lightning_mono.bench.profile import Operator, profiled
from lightning_mono.bench.prompts import Prompt
from lightning_mono.bench.roofline import Gauge, Machine
from lightning_mono.bench.subject import Subject
from lightning_mono.bench.timing import Contestant, Sample, clock_of, interleaved
from lightning_mono.errors import UserError

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""By how much results may differ, over the greatest of them; 0.1 in other dtypes."""


class Kind(Protocol):
    """What is measured.

    Attributes:
        name: of the benchmark on the command line.
        title: what is measured, for pictures.
        rate: pictures show tokens a second, and not seconds.
        memory_layers: as many suffice to measure memory; None for all.
    """

    subject: Subject
    name: str
    title: str
    rate: bool
    memory_layers: int | None

    def line_up(self, prompt: Prompt, names: Collection[str]) -> dict[str, Contestant]:
        """Contestants for one prompt."""

    def seconds(self, sample: Sample) -> float:
        """Of a sample, those that count."""

    def weights(self, name: str) -> int:
        """Bytes of a contestant's model."""

    def tokens(self, prompt: Prompt) -> int:
        """That are read, made or learned from in as many seconds."""

    def floors(self, prompt: Prompt, machine: Machine) -> dict[str, float]:
        """The least seconds of our model, by what they are counted from."""

    def outcome(self, result: Any) -> Tensor:
        """Of a turn's result, what all have to agree in."""


@dataclass(frozen=True)
class Result:
    """One contestant on one prompt.

    Attributes:
        seconds: the median of its turns.
        to_ours: times ours; the median of what each round gave.
        tokens_per_s: by the median.
        reached: by floor, the share of its time that the floor takes; nothing for a twin.
        difference: greatest, of its first result to ours (of a twin's to the twin's), over the
            greatest number there; None for those two.
        peak: its memory, where measured.
        samples: seconds of each turn.
    """

    contestant: str
    seconds: float
    to_ours: float | None
    tokens_per_s: float
    reached: dict[str, float]
    difference: float | None
    peak: Peak | None
    samples: list[Sample]


@dataclass(frozen=True)
class Measured:
    """One prompt: the least seconds that it takes, and what came out."""

    prompt: Prompt
    floors: dict[str, float]
    results: list[Result]


@dataclass(frozen=True)
class Report:
    """A whole run.

    Attributes:
        kind: prefill, decode or train.
        model: name and sizes, as they were measured.
        layers, of_layers: decoder layers here, and of the whole model.
        load: of the host as the run began, in waiting or running processes.
        skipped: contestants that cannot run here -> why.
        profile: operators of one turn of ours at the longest prompt, where it was asked for.
    """

    kind: str
    title: str
    rate: bool
    model: str
    layers: int
    of_layers: int
    device: str
    dtype: str
    torch: str
    threads: int
    load: float
    machine: Machine
    skipped: dict[str, str]
    cases: list[Measured]
    profile: list[Operator] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists; a prompt says how many of its tokens are visual."""
        plain = asdict(self)
        for written, case in zip(plain["cases"], self.cases, strict=True):
            written["prompt"]["visual"] = case.prompt.visual
        return plain


def race(
    kind: Kind,
    prompts: Sequence[Prompt],
    *,
    names: Collection[str],
    skipped: Mapping[str, str],
    rounds: int,
    seconds: float,
    peaks: Mapping[Prompt, Callable[[str], Peak]],
    profile: Prompt | None = None,
    progress: Callable[[Sequence[Prompt]], Any] = iter,
) -> Report:
    """Times contestants in turns, prompt by prompt.

    Before all, a prompt of one tile is run once, uncounted. First results are compared.

    Args:
        names: of the contestants.
        skipped: those that cannot run, and why; for the report.
        rounds: turns of each on each prompt, at most.
        seconds: for a prompt's rounds; there is always one.
        peaks: by prompt, what measures a contestant's memory.
        profile: the prompt at which a turn of ours is profiled.

    Raises:
        UserError: a prompt that no tiles make, or contestants that do not agree.
    """
    subject = kind.subject
    for prompt in prompts:
        prompt.check(subject.config)
    load = os.getloadavg()[0]
    gauge, clock = Gauge(subject.device, subject.dtype), clock_of(subject.device)
    gauge.measure()
    interleaved(kind.line_up(prompts[0].shortest(subject.config), names), 0, clock)
    timed = []
    for prompt in progress(prompts):
        timed.append((prompt, *_timed(kind, prompt, names, rounds, seconds)))
        gauge.measure()
    return Report(
        kind=kind.name,
        title=kind.title,
        rate=kind.rate,
        model=subject.title,
        layers=subject.config.decoder.layers,
        of_layers=subject.whole.decoder.layers,
        device=device_name(subject.device),
        dtype=str(subject.dtype).removeprefix("torch."),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        load=load,
        machine=gauge.machine,
        skipped=dict(skipped),
        cases=[
            _measured(kind, prompt, samples, differences, peaks.get(prompt), gauge.machine)
            for prompt, samples, differences in timed
        ],
        profile=profiled(kind.line_up(profile, [OURS])[OURS], subject.device) if profile else None,
    )


def _timed(
    kind: Kind, prompt: Prompt, names: Collection[str], rounds: int, seconds: float
) -> tuple[dict[str, list[Sample]], dict[str, float]]:
    """Samples and differences; what the contestants hold for a prompt is gone behind it."""
    line, outcomes = _remembering(kind, kind.line_up(prompt, names))
    clock = clock_of(kind.subject.device)
    samples = interleaved(line, rounds, clock, warm=True, seconds=seconds)
    return samples, _differences(outcomes, prompt, kind.subject.dtype)


def _remembering(
    kind: Kind, line: Mapping[str, Contestant]
) -> tuple[dict[str, Contestant], dict[str, Tensor]]:
    """The contestants, and where the outcome of each one's first turn will be."""
    outcomes: dict[str, Tensor] = {}

    def remember(name: str) -> Callable[[Any], None]:
        def first(result: Any) -> None:
            if name not in outcomes:
                outcomes[name] = kind.outcome(result)

        return first

    return {name: replace(c, after=remember(name)) for name, c in line.items()}, outcomes


def _differences(
    outcomes: Mapping[str, Tensor], prompt: Prompt, dtype: torch.dtype
) -> dict[str, float]:
    """By contestant, how far it is from ours; of a twin, from the twin.

    Raises:
        UserError: too far: they did not compute the same.
    """
    found = {}
    for name, outcome in outcomes.items():
        model = TWIN if name == TRANSFORMERS else OURS
        if name in (OURS, TWIN) or model not in outcomes:
            continue
        scale = outcomes[model].abs().max().item()
        found[name] = (outcome - outcomes[model]).abs().max().item() / scale
        if not found[name] <= TOLERANCE.get(dtype, 0.1):
            raise UserError(
                f"{prompt.tokens:,} tokens: {name} differs from {model} by {found[name]:.1e} of "
                "the greatest number; the times would say nothing"
            )
    return found


def _measured(
    kind: Kind,
    prompt: Prompt,
    samples: Mapping[str, list[Sample]],
    differences: Mapping[str, float],
    peak_of: Callable[[str], Peak] | None,
    machine: Machine,
) -> Measured:
    floors = kind.floors(prompt, machine)
    seconds = {name: [kind.seconds(sample) for sample in own] for name, own in samples.items()}
    results = []
    for name, own in seconds.items():
        ours = seconds.get(OURS)
        reached = {} if name.startswith(TWIN) else {f: s / median(own) for f, s in floors.items()}
        results.append(
            Result(
                contestant=name,
                seconds=median(own),
                to_ours=median(map(_ratio, own, ours)) if ours else None,
                tokens_per_s=kind.tokens(prompt) / median(own),
                reached=reached,
                difference=differences.get(name),
                peak=peak_of(name) if peak_of else None,
                samples=samples[name],
            )
        )
    return Measured(prompt, floors, results)


def _ratio(one: float, other: float) -> float:
    return one / other
