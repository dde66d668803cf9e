"""Marks checkpoints with the vocabulary that their weights were trained on."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from typing_extensions import override


class VocabularyMark(pl.Callback):
    """Writes the mark into each checkpoint: weights mean nothing to another tokenizer.

    Args:
        mark: as :func:`~lightning_mono.starting.vocabulary_mark` gives it.
    """

    def __init__(self, mark: str) -> None:
        self.mark = mark

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["vocabulary"] = self.mark
