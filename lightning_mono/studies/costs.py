"""What a run costs: counted before it runs, and timed when it has run."""

from __future__ import annotations

import json
from dataclasses import dataclass

from lightning_mono.plan import plan
from lightning_mono.studies.cells import Cell


@dataclass(frozen=True)
class Cost:
    """Of one run.

    Attributes:
        parameters: of the model.
        trainable: that learn in some stage.
        flops: of training, all stages, forward and backward.
        memory: bytes on one device at the highest moment of training, as planned.
        tokens: read in training.
        seconds: of training; it depends on the machine and on what else it does.
    """

    parameters: int
    trainable: int
    flops: float
    memory: float
    tokens: float
    seconds: float


def cost_of(cell: Cell) -> Cost:
    """The cost of a run that is done."""
    planned = plan(cell.recipe, (), 1.0)
    learnt = {group for stage in planned.stages for group in stage.train}
    steps = {
        record["step"]: record
        for line in cell.run.journal.read_text(encoding="utf-8").splitlines()
        if (record := json.loads(line))["event"] == "step"
    }
    return Cost(
        parameters=planned.total_parameters,
        trainable=sum(planned.parameters[group] for group in learnt),
        flops=sum(stage.flops.total * stage.steps for stage in planned.stages),
        memory=max(stage.memory.total for stage in planned.stages),
        tokens=sum(record["tokens"] for record in steps.values()),
        seconds=sum(record["seconds"] for record in steps.values()),
    )
