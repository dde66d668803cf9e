"""Marks checkpoints with the samples that were read up to them, and in which order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

from lightning_mono.data.loader import StageData
from lightning_mono.errors import CheckpointError
from lightning_mono.stages import StageSchedule

ROWS = 64
"""Rows at the start of a data set's order that are part of its mark."""


class OrderMark(pl.Callback):
    """Refuses to go on with other samples than those of the stages that a checkpoint has seen.

    A place in the data is a number of batches, which means nothing in another order. Checkpoints
    of older versions have no marks and are taken as they are.

    Args:
        schedule: the stages.
        marks: of each data set that they read, as :func:`order_mark` gives it.
        resume_from: the checkpoint that ``fit`` was given, for the message.
    """

    def __init__(
        self, schedule: StageSchedule, marks: Mapping[str, str], resume_from: Path | None
    ) -> None:
        self.schedule = schedule
        self.marks = marks
        self.resume_from = resume_from

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["order"] = dict(self.marks)

    @override
    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        saved, step = checkpoint.get("order", {}), checkpoint["global_step"]
        for index, stage in enumerate(self.schedule.stages):
            seen = self.schedule.start(index) < step
            if seen and saved.get(stage.data, self.marks[stage.data]) != self.marks[stage.data]:
                raise CheckpointError(
                    f"{self.resume_from}: data.{stage.data} does not give the samples that stage "
                    f"{stage.name} read; undo the change of its sources, sizes, images or of the "
                    "seed, or start a run of another name"
                )


def order_mark(data: StageData, world: int) -> str:
    """Tells data sets apart that do not give the same batches in the same order.

    Args:
        data: a stage's.
        world: how many processes share each batch; their number does not change the mark.
    """
    plan = data.plan
    told = [
        [[s.manifest["source"], s.manifest["split"], s.chunk_sizes] for s in data.stores],
        [data.renderer.fingerprint, data.loss, repr(data.augment)],
        [list(plan.weights), plan.sequence_length, plan.batch_size * world, plan.seed],
        list(islice(plan.packs(), ROWS)),
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
