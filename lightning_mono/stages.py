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
from typing import Any, Literal

Unit = Literal["steps", "samples", "tokens", "epochs"]

SCHEDULES = ("constant", "cosine", "wsd")


@dataclass(frozen=True)
class Duration:
    """How long a stage lasts.

    Written ``300 steps``, ``900_000 samples``, ``2_000_000 tokens`` or ``2 epochs``. Tokens are
    those that are read, padding not counted.
    """

    value: float
    unit: Unit

    @classmethod
    def parse(cls, text: str | int) -> Duration:
        """Reads ``300 steps``; a bare number counts steps.

        Raises:
            ValueError: one line that says how a duration is written.
        """
        match = re.fullmatch(
            r"\s*(\d[\d_]{0,14}(?:\.\d+)?)\s*(steps?|samples?|tokens?|epochs?)?\s*", str(text)
        )
        if not match:
            raise ValueError(
                f"{text!r} is no duration; write '300 steps', '900_000 samples', "
                "'2_000_000 tokens' or '2 epochs'"
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
        schedule: what follows: ``constant``; ``cosine`` down to min_lr_ratio * lr; or ``wsd``,
            constant and at last linearly down to it (MiniCPM, Hu et al. 2024, section 4).
        decay_share: the part of the stage, from 0 to 1, over which ``wsd`` goes down.
        layer_decay: factor on the rate for each layer below the last one.
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
    decay_share: float = 0.1
    layer_decay: float = 1.0

    def decay_steps(self, steps: int) -> int:
        """Steps at the end of a stage of ``steps`` over which ``wsd`` goes down."""
        return min(math.ceil(self.decay_share * steps), max(0, steps - self.warmup_steps))


@dataclass(frozen=True)
class Stage:
    """One stage with everything resolved.

    Attributes:
        steps: optimizer steps.
        train: names of the parameter groups that learn; all others are frozen.
        data: name of the data set.
        lr_scale: factor on the learning rate by group.
        accumulate: parts that a step's batch is computed in, one after the other.
        fresh: begin without the optimizer's moments; otherwise what stays trained keeps them.
        planned: steps that the learning rate's curve spans, where the run stops before its end;
            None where it spans ``steps``.
    """

    name: str
    steps: int
    train: tuple[str, ...]
    data: str
    optim: Optim = field(default_factory=Optim)
    lr_scale: Mapping[str, float] = field(default_factory=dict)
    accumulate: int = 1
    fresh: bool = False
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

    @property
    def by_layer(self) -> bool:
        """Whether the rate depends on the layer in any stage."""
        return any(stage.optim.layer_decay != 1 for stage in self.stages)

    def lr(self, step: int, group: str, below: int = 0) -> float:
        """Learning rate of a parameter group at a step; 0 where the stage does not train it.

        Args:
            below: how many layers below the last one the parameters stand, as
                :func:`~lightning_mono.params.layers_below` tells.
        """
        index = self.index_at(step)
        stage = self.stages[index]
        if group not in stage.train:
            return 0.0
        factor = schedule_factor(stage.optim, step - self.start(index), stage.span)
        rate = stage.optim.lr * factor * stage.lr_scale.get(group, 1.0)
        return rate * stage.optim.layer_decay**below

    def fingerprint(self, step: int) -> str:
        """Identifies what has been run before ``step``: resuming with another past is refused."""
        done = []
        for index, stage in enumerate(self.stages):
            if self.start(index) >= step:
                break
            done.append(_past(stage, min(self.ends[index], step) - self.start(index)))
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
    if optim.schedule == "wsd":
        last = optim.decay_steps(steps)
        progress = (step - (steps - last)) / max(1, last)
        fallen = min(1.0, max(0.0, progress))
        return 1 - (1 - optim.min_lr_ratio) * fallen
    progress = (step - optim.warmup_steps) / max(1, steps - optim.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return optim.min_lr_ratio + (1 - optim.min_lr_ratio) * cosine


def _past(stage: Stage, done: int) -> dict[str, Any]:
    """What of a stage its first ``done`` steps have felt, to be compared.

    Parts of a step are left out, for the step is the same in any number of them. What was added to
    stages since is left out where it changes nothing, so that older checkpoints still compare.
    """
    entry = asdict(stage)
    optim = entry["optim"]
    high = stage.span - stage.optim.decay_steps(stage.span)  # the last step at the full rate
    falling = stage.optim.schedule == "wsd" and done - 1 > high
    felt = stage.optim.schedule == "cosine" or falling
    # A stage under way may get another length where its rates so far do not depend on it.
    entry.update(steps=done, planned=stage.span if felt else None)
    del entry["accumulate"]
    if not stage.fresh:
        del entry["fresh"]
    if not falling:
        del optim["decay_share"]
    if stage.optim.layer_decay == 1:
        del optim["layer_decay"]
    return entry
