"""Checkpoints every so many steps, from which a killed run goes on."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

from lightning_mono.checkpoints.run import step_file, step_of


class PeriodicCheckpoint(pl.Callback):
    """Saves the whole training state every ``every`` optimizer steps, and keeps the last one.

    The older checkpoint goes only when the newer one is on disk. Stage-end checkpoints are
    :class:`~lightning_mono.callbacks.stages.StageScheduler`'s, and stay.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder = folder
        self.every = every
        self._saved = -1

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        if step % self.every or step == self._saved or step == 0:
            return
        trainer.save_checkpoint(step_file(self.folder, step), weights_only=False)
        self._saved = step
        if trainer.is_global_zero:
            for old in self.folder.glob("step=*.ckpt"):
                if step_of(old) < step:
                    with contextlib.suppress(OSError):
                        old.unlink()
