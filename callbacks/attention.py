"""How attention moves while a run trains: measures by layer, and where answers look."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from lightning_mono.attention.capture import Capture, both
from lightning_mono.attention.measures import Ground, Measures, quotients
from lightning_mono.attention.paint import blend, enlarged
from lightning_mono.journal import Journal
from lightning_mono.model import Batch, PatchifierConfig
from lightning_mono.model.rows import batch_rows
from lightning_mono.module import MonoModule

ROWS = 2
"""Rows of the batch that are read."""

SIDE = 112
"""Pixels of a picture in the strip of layers."""


class AttentionMeasures(pl.Callback):
    """Reads the first rows of a batch once more and notes what their attention comes to.

    Every measure of :data:`MEASURES` is noted by layer, over heads, rows and devices, in the
    journal and in each logger as ``image_share/layer_03``; those that no token of the rows counts
    for are left out. TensorBoard also gets a strip of pictures, a layer each: where the first
    position that predicts a supervised token looks in the tile that it looks at most.

    Args:
        journal: where the figures go.
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
        sums, strip = read_attention(pl_module, rows)
        if trainer.world_size > 1:
            sums = trainer.strategy.reduce(sums, reduce_op="sum")
        if not trainer.is_global_zero:
            return
        found = {
            name: [round(x, 6) for x in layers.tolist()]
            for name, layers in quotients(sums.cpu()).items()
            if not bool(layers.isnan().any())
        }
        if found:
            self.journal.write("attention", step=step, **found)
        figures = {
            f"{name}/layer_{layer:02d}": value
            for name, layers in found.items()
            for layer, value in enumerate(layers)
        }
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=step)
            if strip is not None and isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("attention/layers", strip, step, dataformats="HWC")


@torch.no_grad()
def read_attention(module: MonoModule, batch: Batch) -> tuple[Tensor, NDArray[np.uint8] | None]:
    """Measures and picture of a batch.

    Returns:
        (layers, measures, 2) fp64: what is divided and by what; and a strip of tiles, (height,
        width, 3), where a position predicts a supervised token and sees an image.
    """
    config = module.model.config
    assert config.patchifier is not None
    ground = Ground.of(batch, config.patchifier)
    measures = Measures(ground)
    answers = ground.answers.nonzero()
    if not len(answers):
        module(batch, watch=measures)
        return measures.sums.sum(-1), None
    row, column = answers[0].tolist()
    capture = Capture(config.decoder, rows=[column], mean=True)
    module(batch, watch=both(measures, capture))
    looks = torch.stack([capture.weights(layer)[row, 0, 0] for layer in capture.layers])
    tiles = ground.tile[row].cpu()
    return measures.sums.sum(-1), _strip(looks, tiles, batch.pixel_values, config.patchifier)


def _strip(
    looks: Tensor, tiles: Tensor, pixels: Tensor, patchifier: PatchifierConfig
) -> NDArray[np.uint8]:
    """One tile, a layer after the other, each as bright as where the layer looks most.

    Args:
        looks: (layers, columns), what each layer gives to each column.
        tiles: (columns,), the tile of each, -1 for text.
    """
    numbers = tiles[tiles >= 0].unique()
    most = int(max(numbers, key=lambda number: float(looks[:, tiles == number].sum())))
    side = (patchifier.grid, patchifier.grid)
    tile = pixels[most].float().mean(0).cpu()
    low, high = float(tile.min()), float(tile.max())
    gray = enlarged(((tile - low) / max(high - low, 1e-6)).numpy(), SIDE, SIDE)
    drawn = []
    for cells in looks[:, tiles == most].numpy():
        cells = cells.reshape(side)
        cells = cells.T if patchifier.kind == "conv" and patchifier.order == "v1" else cells
        heat = enlarged(cells / max(float(cells.max()), 1e-12), SIDE, SIDE)
        drawn.append(np.pad(blend(gray, heat), ((2, 2), (2, 2), (0, 0)), constant_values=255))
    return np.concatenate(drawn, axis=1)
