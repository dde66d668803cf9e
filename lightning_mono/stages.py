"""The curriculum as data: which groups train, on what, for how long, at which rate.

Stage and learning rate are pure functions of the optimizer step. Nothing here is remembered, so a
run that was killed goes on exactly where a run that was not would be.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from typing import Literal

Unit = Literal["steps", "samples", "epochs"]


@dataclass(frozen=True)
class Duration:
    """How long a stage lasts: ``300 steps``, ``900_000 samples`` or ``2 epochs``."""

    value: float
    unit: Unit

    @classmethod
    def parse(cls, text: str | int) -> Duration:
        """Reads ``300 steps``; a bare number counts steps.

        Raises:
            ValueError: one line that says how a duration is written.
        """
        match = re.fullmatch(
            r"\s*(\d[\d_]{0,14}(?:\.\d+)?)\s*(steps?|samples?|epochs?)?\s*", str(text)
        )
        if not match:
            raise ValueError(
                f"{text!r} is no duration; write '300 steps', '900_000 samples' or '2 epochs'"
            )
        value = float(match[1].replace("_", ""))
        unit = (match[2] or "steps").rstrip("s") + "s"
        if value <= 0 or (unit != "epochs" and value != int(value)):
            raise ValueError(f"{text!r}: a duration is a positive whole number of {unit}")
        return cls(value, unit)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Optim:
    """Optimizer settings of one stage.

    Attributes:
        lr: peak learning rate.
        warmup_steps: steps of linear rise at the stage's start.
        schedule: what follows: ``constant``, or ``cosine`` down to min_lr_ratio * lr.
        grad_clip: largest L2 norm of all gradients together; 0 turns clipping off.
    """

    name: str = "adamw"
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.05
    grad_clip: float = 1.0
    warmup_steps: int = 0
    schedule: str = "constant"
    min_lr_ratio: float = 0.0


@dataclass(frozen=True)
class Stage:
    """One stage with everything resolved.

    Attributes:
        steps: optimizer steps.
        train: names of the parameter groups that learn; all others are frozen.
        data: name of the data set.
        lr_scale: factor on the learning rate by group.
        planned: steps that the learning rate's curve spans, where the run stops before its end;
            None where it spans ``steps``.
    """

    name: str
    steps: int
    train: tuple[str, ...]
    data: str
    optim: Optim = field(default_factory=Optim)
    lr_scale: Mapping[str, float] = field(default_factory=dict)
    planned: int | None = None

    @property
    def span(self) -> int:
        """Steps from the start to the end of the learning rate's curve."""
        return self.steps if self.planned is None else self.planned


@dataclass(frozen=True)
class StageSchedule:
    """Stages in order. Step ``s`` is the (s+1)-th optimizer step of the whole run."""

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("a schedule needs at least one stage")

    @property
    def ends(self) -> list[int]:
        """The step at which each stage is over."""
        return list(accumulate(stage.steps for stage in self.stages))

    @property
    def total_steps(self) -> int:
        return self.ends[-1]

    def start(self, index: int) -> int:
        """The first step of a stage."""
        return self.ends[index] - self.stages[index].steps

    def index_at(self, step: int) -> int:
        """The stage that step belongs to; the last one from the end of the run on."""
        for index, end in enumerate(self.ends):
            if step < end:
                return index
        return len(self.stages) - 1

    def at(self, step: int) -> Stage:
        return self.stages[self.index_at(step)]

    def lr(self, step: int, group: str) -> float:
        """Learning rate of a parameter group at a step; 0 where the stage does not train it."""
        index = self.index_at(step)
        stage = self.stages[index]
        if group not in stage.train:
            return 0.0
        factor = schedule_factor(stage.optim, step - self.start(index), stage.span)
        return stage.optim.lr * factor * stage.lr_scale.get(group, 1.0)

    def fingerprint(self, step: int) -> str:
        """Identifies what has been run before ``step``: resuming with another past is refused."""
        done = []
        for index, stage in enumerate(self.stages):
            if self.start(index) >= step:
                break
            entry = asdict(stage)
            entry["steps"] = min(self.ends[index], step) - self.start(index)
            # A stage under way may get another length where its rates so far do not depend on it.
            entry["planned"] = None if stage.optim.schedule == "constant" else stage.span
            done.append(entry)
        text = json.dumps(done, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def cut(self, max_steps: int | None) -> StageSchedule:
        """The schedule's first ``max_steps`` steps, at the same learning rates; None keeps all."""
        if max_steps is None or max_steps >= self.total_steps:
            return self
        kept: list[Stage] = []
        for index, stage in enumerate(self.stages):
            left = max_steps - self.start(index)
            if left > 0:
                short = replace(stage, steps=left, planned=stage.span)
                kept.append(stage if left >= stage.steps else short)
        return StageSchedule(tuple(kept))


def schedule_factor(optim: Optim, step: int, steps: int) -> float:
    """The learning rate's factor at ``step`` of a stage of ``steps``: warm-up, then schedule."""
    if step < optim.warmup_steps:
        return (step + 1) / optim.warmup_steps
    if optim.schedule == "constant":
        return 1.0
    progress = (step - optim.warmup_steps) / max(1, steps - optim.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return optim.min_lr_ratio + (1 - optim.min_lr_ratio) * cosine
