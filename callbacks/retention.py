"""Does the language survive? Text-only logits, bit for bit, and perplexity, at every boundary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typing_extensions import override

from lightning_mono.checkpoints.atomic import replacing
from lightning_mono.journal import Journal
from lightning_mono.model import MonoModel
from lightning_mono.module import MonoModule
from lightning_mono.stages import StageSchedule

PROMPTS = 8
"""Rows of the held-out text whose logits are kept to be compared."""


class TextRetention(pl.Callback):
    """Compares the model with what it was before the first step, before and after every stage.

    The logits of text-only prompts at the start are kept in ``reference``; a run that resumes
    compares with the same ones. While no text weight trains they are equal to the last bit.

    Args:
        text: held-out text as token ids, (rows, tokens) int64.
        journal: where the findings go.
        schedule: the stages.
        reference: file for the logits at the start.
    """

    def __init__(
        self, text: Tensor, journal: Journal, schedule: StageSchedule, reference: Path
    ) -> None:
        self.text = text
        self.journal = journal
        self.schedule = schedule
        self.reference = reference

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            self._note(trainer, pl_module, "start")

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if trainer.global_step in self.schedule.ends:
            self._note(trainer, pl_module, self.schedule.at(trainer.global_step - 1).name)

    def _note(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """All processes read the text, since each may hold only a part of the model."""
        assert isinstance(pl_module, MonoModule)
        now = prompt_logits(pl_module, self.text)
        value, tokens = perplexity(pl_module, self.text)
        if not trainer.is_global_zero:
            return
        step = trainer.global_step
        if step == 0:
            with replacing(self.reference) as temporary:
                save_file({"logits": now}, temporary)
        before = load_file(self.reference)["logits"]
        self.journal.write(
            "retention",
            step=step,
            stage=stage,
            logits_identical=torch.equal(now, before),
            max_abs_difference=float((now - before).abs().max()),
            perplexity=value,
            perplexity_tokens=tokens,
        )


@torch.no_grad()
def prompt_logits(model: MonoModel | MonoModule, text: Tensor) -> Tensor:
    """Logits of the first prompts of a text, each on its own: (prompts, tokens, vocabulary)."""
    rows = text[:PROMPTS].to(model.device)
    return torch.cat([model(row[None]).logits.float().cpu() for row in rows])


@torch.no_grad()
def perplexity(model: MonoModel | MonoModule, text: Tensor) -> tuple[float, int]:
    """exp of the mean negative log-likelihood a token over (rows, tokens) int64.

    Returns:
        The perplexity, and the number of tokens predicted.
    """
    total, tokens = 0.0, 0
    for row in text.to(model.device):
        loss = model(row[None], labels=row[None]).loss
        assert loss is not None
        total += float(loss) * (row.numel() - 1)
        tokens += row.numel() - 1
    return math.exp(total / max(1, tokens)), tokens


def rows_of(ids: Sequence[int], width: int, tokens: int) -> Tensor:
    """Cuts a token sequence into (rows, width), ``tokens`` in all or fewer; a short end is left."""
    count = min(len(ids), tokens) // width
    return torch.tensor(list(ids[: count * width]), dtype=torch.int64).view(count, width)
