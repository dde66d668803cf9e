"""Notes every step and every stage in the run's journal, and in its loggers."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

from lightning_mono.data.loader import StagedLoader
from lightning_mono.journal import Journal
from lightning_mono.model import Batch
from lightning_mono.model.quantised import parameter_count
from lightning_mono.module import MonoModule
from lightning_mono.speed import Speed
from lightning_mono.stages import StageSchedule


class JournalCallback(pl.Callback):
    """Notes every step's loss, rate, tokens and time, and every stage's beginning.

    A step's number is how many are done with it, so the first is 1; a stage's is how many were
    done before it. A step's time begins when its batch is asked for and ends with its update; put
    this callback before those that save or measure.

    On several devices tokens, samples and targets are the first one's times their number.

    ``every`` steps are written at once, with the last one's gradient norms, and no later than the
    next checkpoint.
    """

    def __init__(self, journal: Journal, schedule: StageSchedule, every: int = 10) -> None:
        self.journal = journal
        self.schedule = schedule
        self.every = every
        self.speed = Speed()
        self._stage: int | None = None
        self._waiting: list[dict[str, Any]] = []
        self._norms: dict[str, float] = {}
        self._began = self._waited = self._opening = 0.0

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self._began = time.monotonic()

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        assert isinstance(pl_module, MonoModule)
        step, loader = trainer.global_step - 1, trainer.train_dataloader
        assert isinstance(loader, StagedLoader)
        waited, opening = loader.waited - self._waited, loader.opening - self._opening
        self._waited, self._opening = loader.waited, loader.opening
        self._note_stage(trainer, pl_module, step)
        stage = self.schedule.at(step)
        record = {
            "step": step + 1,
            "stage": stage.name,
            "lr": max(self.schedule.lr(step, group) for group in stage.train),
            "tokens": batch.tokens * trainer.world_size,
            "samples": len(batch.samples) * trainer.world_size,
            "supervised": batch.targets.numel() * trainer.world_size,
            "seconds": round(time.monotonic() - self._began + waited + opening, 4),
            "waited": round(waited, 4),
            "opening": round(opening, 4),
            "loss": round(pl_module.loss, 6),
        }
        self.speed.add(record)
        self._waiting.append(record)
        self._norms = pl_module.grad_norms
        if len(self._waiting) >= self.every or trainer.global_step in self.schedule.ends:
            self.flush(trainer)

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """A run that goes on from there does not take these steps again."""
        self.flush(trainer)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.flush(trainer)
        if trainer.is_global_zero and self.speed.steps:
            speed = self.speed
            self.journal.write("speed", **speed.figures())
            print(
                f"{speed.steps} steps at {speed.tokens_per_second:,.0f} tokens/s; "
                f"{speed.loader_wait:.1%} of the time spent waiting for data, and "
                f"{speed.opening:.1f} s for the first batch of each stage",
                flush=True,
            )

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.flush(trainer)

    def flush(self, trainer: pl.Trainer) -> None:
        """Writes the steps that wait, and sends them to the loggers."""
        if not self._waiting:
            return
        records, self._waiting = self._waiting, []
        if not trainer.is_global_zero:
            return
        lately = Speed()
        for record in records:
            self.journal.write("step", **record)
            lately.add(record)
        last, norms = records[-1], self._norms
        self.journal.write("gradients", step=last["step"], norms=norms)
        figures = {
            "train/loss": sum(record["loss"] for record in records) / len(records),
            "train/lr": last["lr"],
            "train/tokens_per_second": lately.tokens_per_second,
            "train/loader_wait": lately.loader_wait,
            "train/stage": float(self.schedule.index_at(last["step"] - 1)),
            **{f"gradient_norm/{group}": norm for group, norm in norms.items()},
        }
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=last["step"])

    def _note_stage(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int) -> None:
        """Notes the stage of a step that was just taken, once."""
        index = self.schedule.index_at(step)
        if index == self._stage:
            return
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
            resumed=step != self.schedule.start(index),
        )
