"""Stops a run before a loss that is not finite spoils its weights, and names the samples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch.distributed as dist
from torch.optim import Optimizer
from typing_extensions import override

from lightning_mono.checkpoints.run import step_file
from lightning_mono.data.loader import StagedLoader
from lightning_mono.errors import TrainingError
from lightning_mono.journal import Journal
from lightning_mono.model import Batch
from lightning_mono.module import MonoModule

NAMED = 8
"""Samples that the message names; the journal has all of them."""


class FiniteGuard(pl.Callback):
    """Looks at loss and gradient norm before each update.

    They are those of all devices together, so all processes stop at the same step. What is saved
    then is the state before the step.

    Args:
        folder: where the checkpoint goes.
        journal: where the samples are noted.
    """

    def __init__(self, folder: Path, journal: Journal) -> None:
        self.folder = folder
        self.journal = journal
        self._samples: list[str] = []

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self._samples = batch.samples

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        assert isinstance(pl_module, MonoModule)
        loss, norm = pl_module.loss, math.hypot(*pl_module.grad_norms.values())
        if math.isfinite(loss) and math.isfinite(norm):
            return
        loader = trainer.train_dataloader
        assert isinstance(loader, StagedLoader)
        loader.take_back()
        path = step_file(self.folder, trainer.global_step)
        trainer.save_checkpoint(path, weights_only=False)
        samples = gathered(self._samples)
        step, of_loss = trainer.global_step + 1, not math.isfinite(loss)
        what = f"the loss is {loss}" if of_loss else f"the gradient's norm is {norm}"
        self.journal.write("not_finite", step=step, what=what, samples=samples)
        named = ", ".join(samples[:NAMED])
        more = f" and {len(samples) - NAMED} more" if len(samples) > NAMED else ""
        raise TrainingError(
            f"step {step}: {what}; its batch holds {named}{more}; the state before it is saved in "
            f"{path}; look at these samples, or start anew with a lower optim.lr"
        )


def gathered(samples: list[str]) -> list[str]:
    """The samples of all processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return samples
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, samples)
    return [sample for each in every for sample in each]
