"""One line that says where a run is: stage, step, loss, tokens a second, time left."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm
from typing_extensions import override

from lightning_mono.model import Batch
from lightning_mono.stages import StageSchedule


class StageProgress(ProgressBar):
    """A bar over the whole schedule; where there is no terminal, a line every ``seconds``."""

    def __init__(self, schedule: StageSchedule, seconds: float = 15.0) -> None:
        super().__init__()
        self.schedule = schedule
        self.seconds = seconds
        self._bar: tqdm | None = None
        self._tokens = 0

    @override
    def disable(self) -> None:
        self._bar = None

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=self.schedule.total_steps,
            initial=trainer.global_step,
            unit="step",
            mininterval=0.2 if terminal else self.seconds,
            maxinterval=self.seconds,
            dynamic_ncols=terminal,
            ncols=None if terminal else 100,
            ascii=not terminal,
            bar_format="{desc} {n_fmt}/{total_fmt} |{bar:20}| {postfix} left {remaining}",
            file=sys.stderr,
        )
        self._tokens, self._start = 0, time.monotonic()

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        bar = self._bar
        if bar is None:
            return
        self._tokens += batch.tokens * trainer.world_size
        done = trainer.global_step - bar.n
        due = time.time() - bar.last_print_t >= bar.mininterval
        if due or trainer.global_step >= self.schedule.total_steps:
            stage = self.schedule.at(trainer.global_step - 1)
            rate = self._tokens / max(time.monotonic() - self._start, 1e-9)
            bar.set_description_str(f"{stage.name:>12}", refresh=False)
            loss = float(outputs["loss"])
            bar.set_postfix_str(f"loss {loss:.3f} {rate:,.0f} tok/s", refresh=False)
        bar.update(done)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
