"""An exponential moving average of the weights: what is exported where a recipe asks for it."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from typing_extensions import override

from lightning_mono.module import MonoModule
from lightning_mono.params import canonical
from lightning_mono.strategies.shards import gathered_state, sharded


class WeightAverage(pl.Callback):
    """Averages every weight that trains or has trained: average += (1 - decay)(weight - average).

    It begins at the weight where a weight first trains, so it is the average of all weights from
    the run's first step: what has never trained equals its average, and takes no memory. What
    froze again goes on being averaged. Averages are in fp32 at least, and part of each checkpoint.
    Training itself never sees them.

    Args:
        decay: 0.999 averages over a thousand steps, roughly.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, Tensor] = {}

    @override
    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.average = checkpoint.get("average", {})

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["average"] = gathered_state(self.average, keep=trainer.is_global_zero)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts what was read from a checkpoint where its weights are."""
        weights = _weights(pl_module)
        for name, value in self.average.items():
            placed = value.to(weights[name].device, copy=True)
            self.average[name] = sharded(placed, weights[name])

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        for name, weight in _weights(pl_module).items():
            if weight.requires_grad and name not in self.average:
                wide = torch.promote_types(weight.dtype, torch.float32)
                self.average[name] = weight.detach().to(wide, copy=True)

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        weights = _weights(pl_module)
        for name, average in self.average.items():
            here = _here(average)
            here.lerp_(_here(weights[name].detach()).to(here.dtype), 1 - self.decay)


def _weights(pl_module: pl.LightningModule) -> dict[str, Tensor]:
    assert isinstance(pl_module, MonoModule)
    return {canonical(name): value for name, value in pl_module.model.named_parameters()}


def _here(value: Tensor) -> Tensor:
    """This process' share of a tensor, in the same memory."""
    return value.to_local() if isinstance(value, DTensor) else value
