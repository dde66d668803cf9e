"""Notes every step and every stage in the run's journal, and in its loggers."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from typing_extensions import override

from lightning_mono.journal import Journal
from lightning_mono.model import Batch
from lightning_mono.model.quantised import parameter_count
from lightning_mono.stages import StageSchedule


class JournalCallback(pl.Callback):
    """Notes every step's loss, rate, tokens and time, and every stage's beginning.

    A step's number is how many are done with it, so the first is 1; a stage's is how many were
    done before it.

    Losses stay on the device until ``every`` of them are written at once, so that an accelerator
    is not asked for a number at each step.
    """

    def __init__(self, journal: Journal, schedule: StageSchedule, every: int = 10) -> None:
        self.journal = journal
        self.schedule = schedule
        self.every = every
        self._stage: int | None = None
        self._waiting: list[tuple[dict[str, Any], Tensor]] = []
        self._last = 0.0

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last = time.monotonic()

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        index = self.schedule.index_at(trainer.global_step)
        if index != self._stage:
            resumed = trainer.global_step != self.schedule.start(index)
            self._note_stage(trainer, pl_module, index, resumed)

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        step, now = trainer.global_step - 1, time.monotonic()
        stage = self.schedule.at(step)
        record = {
            "step": step + 1,
            "stage": stage.name,
            "lr": max(self.schedule.lr(step, group) for group in stage.train),
            "tokens": batch.tokens * trainer.world_size,
            "samples": len(batch.samples) * trainer.world_size,
            "supervised": batch.targets.numel() * trainer.world_size,
            "seconds": round(now - self._last, 4),
        }
        self._last = now
        self._waiting.append((record, outputs["loss"].detach()))
        if len(self._waiting) >= self.every or trainer.global_step in self.schedule.ends:
            self.flush(trainer)
        self._last = time.monotonic()

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.flush(trainer)

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.flush(trainer)

    def flush(self, trainer: pl.Trainer) -> None:
        """Writes the steps that wait, and sends them to the loggers."""
        if not self._waiting:
            return
        records = [record for record, _ in self._waiting]
        losses = torch.stack([loss for _, loss in self._waiting]).tolist()
        self._waiting = []
        if not trainer.is_global_zero:
            return
        for record, loss in zip(records, losses, strict=True):
            self.journal.write("step", **record, loss=round(loss, 6))
        seconds = sum(record["seconds"] for record in records)
        last = records[-1]
        figures = {
            "train/loss": sum(losses) / len(losses),
            "train/lr": last["lr"],
            "train/tokens_per_second": sum(r["tokens"] for r in records) / max(seconds, 1e-9),
            "train/stage": float(self.schedule.index_at(last["step"] - 1)),
        }
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=last["step"])

    def _note_stage(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, index: int, resumed: bool
    ) -> None:
        self._stage = index
        if not trainer.is_global_zero:
            return
        stage = self.schedule.stages[index]
        parameters = list(pl_module.parameters())
        self.journal.write(
            "stage",
            step=self.schedule.start(index),
            stage=stage.name,
            train=list(stage.train),
            trainable=sum(p.numel() for p in parameters if p.requires_grad),
            total=parameter_count(pl_module),
            steps=stage.steps,
            lr=stage.optim.lr,
            data=stage.data,
            resumed=resumed,
        )
