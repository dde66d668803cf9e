"""How much of each layer's attention falls on images, now and then while a run trains."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from typing_extensions import override

from lightning_mono.journal import Journal
from lightning_mono.metrics.image_share import asking, image_share
from lightning_mono.model import Batch
from lightning_mono.model.rows import batch_rows
from lightning_mono.module import MonoModule

ROWS = 2
"""Rows of the batch that are read."""


class ImageShare(pl.Callback):
    """Reads the first rows of a batch once more and notes the share of attention on image tokens.

    Only positions count that predict a supervised token and have an image before them; the share
    is averaged over them, over heads and over devices. Where no row has any, nothing is noted.

    Args:
        journal: where the shares go.
        every: steps between two readings.
    """

    def __init__(self, journal: Journal, every: int) -> None:
        self.journal = journal
        self.every = every

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        if step % self.every:
            return
        assert isinstance(pl_module, MonoModule)
        rows = batch_rows(batch, 0, min(ROWS, batch.input_ids.shape[0])).to(pl_module.device)
        shares = image_shares(pl_module, rows)
        known = torch.stack([shares.nan_to_num(), (~shares.isnan()).to(shares)])
        if trainer.world_size > 1:
            known = trainer.strategy.reduce(known, reduce_op="sum")
        total, count = known.tolist()
        if not trainer.is_global_zero or not all(count):
            return
        found = [t / n for t, n in zip(total, count, strict=True)]
        self.journal.write("image_share", step=step, layers=[round(x, 6) for x in found])
        figures = {f"image_share/layer_{layer:02d}": x for layer, x in enumerate(found)}
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=step)


@torch.no_grad()
def image_shares(module: MonoModule, batch: Batch) -> Tensor:
    """The share of each layer, (layers,) fp32; NaN where nothing in the batch has an image."""
    shares = _Shares(batch)
    module(batch, attentions=shares)
    return torch.stack(list(shares))


class _Shares(list[Tensor]):
    """Takes each layer's attention as it comes and keeps its share alone: weights are large."""

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self._visual, self._queries = batch.layout.mask, asking(batch)

    @override
    def append(self, attention: Tensor) -> None:
        super().append(image_share(attention, self._visual, self._queries))
