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
from lightning_mono.module import MonoModule
from lightning_mono.stages import StageSchedule


class StageProgress(ProgressBar):
    """A bar over the whole schedule; where there is no terminal, a line now and then.

    Args:
        schedule: the run's stages.
        seconds: between two lines where standard error is no terminal.
    """

    def __init__(self, schedule: StageSchedule, seconds: float = 20.0) -> None:
        super().__init__()
        self.schedule = schedule
        self.seconds = seconds
        self._bar: tqdm | None = None
        self._tokens = 0

    @override
    def disable(self) -> None:
        """Lightning calls this on all ranks but the first."""

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = self._shown = time.monotonic()
        self._first, self._tokens = trainer.global_step, 0
        if trainer.is_global_zero and sys.stderr.isatty():
            self._bar = tqdm(
                total=self.schedule.total_steps,
                initial=trainer.global_step,
                dynamic_ncols=True,
                bar_format="{desc} |{bar}| {n_fmt}/{total_fmt}",
                file=sys.stderr,
            )

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
        self._tokens += batch.tokens * trainer.world_size
        now, step = time.monotonic(), trainer.global_step
        pause = 0.2 if self._bar is not None else self.seconds
        if not trainer.is_global_zero or (
            now - self._shown < pause and step not in self.schedule.ends
        ):
            return
        self._shown = now
        line = self._line(step, pl_module.loss, now - self._started)
        if self._bar is None:
            print(f"{line}  {step}/{self.schedule.total_steps}", file=sys.stderr, flush=True)
            return
        self._bar.set_description_str(line, refresh=False)
        self._bar.update(step - self._bar.n)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def _line(self, step: int, loss: float, seconds: float) -> str:
        stage = self.schedule.at(step - 1).name
        left = (self.schedule.total_steps - step) * seconds / max(1, step - self._first)
        rate = self._tokens / max(seconds, 1e-9)
        return (
            f"{stage:>10}  loss {loss:6.3f}  {rate:8,.0f} tokens/s  "
            f"{int(left) // 60:d}:{int(left) % 60:02d} left"
        )

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
