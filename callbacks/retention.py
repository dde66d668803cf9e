"""Does the language survive? The model on text alone against what it was, while it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from typing_extensions import override

from lightning_mono.errors import TrainingError
from lightning_mono.journal import Journal
from lightning_mono.module import MonoModule
from lightning_mono.retention.measures import Continuation, followed, read_text
from lightning_mono.retention.reference import CONTINUED, Kept, Reference, prompts_of
from lightning_mono.retention.text import HeldOut
from lightning_mono.stages import StageSchedule


class TextRetention(pl.Callback):
    """Compares the model with what it was before the first step, before and after every stage.

    Perplexity and bits per byte are of the whole text. Logits, KL and agreement are of its first
    rows, whose logits at the start are kept in ``reference``, and so are greedy continuations of
    their beginnings; a run that resumes compares with the same ones. While no text weight trains,
    logits are equal to the last bit, and KL is 0.

    Args:
        text: held-out text.
        journal: where the findings go; the loggers get them too.
        schedule: the stages.
        reference: file for what the model was.
        every: also compare whenever so many steps are done; 0 for stages alone.
    """

    def __init__(
        self,
        text: HeldOut,
        journal: Journal,
        schedule: StageSchedule,
        reference: Path,
        every: int = 0,
    ) -> None:
        self.text = text
        self.journal = journal
        self.schedule = schedule
        self.kept = Kept(reference)
        self.every = every

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, MonoModule)
        if trainer.global_step:
            if trainer.is_global_zero:
                self.kept.check(self.text)
            return
        # All processes read the text, here and below: each may hold only a part of the model.
        reference = Reference.take(pl_module, self.text, pl_module.device)
        if trainer.is_global_zero:
            reference.write(self.kept.path)
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
        step = trainer.global_step
        if step in self.schedule.ends or (self.every and step % self.every == 0):
            assert isinstance(pl_module, MonoModule)
            self._note(trainer, pl_module, self.schedule.at(step - 1).name)

    def _note(self, trainer: pl.Trainer, module: MonoModule, stage: str) -> None:
        first, step = trainer.is_global_zero, trainer.global_step
        said: Tensor | None = trainer.strategy.broadcast(self.kept.said if first else None)
        assert said is not None
        rows = self.kept.rows() if first else ()
        try:
            likelihood, divergence = read_text(module, self.text, module.device, rows)
        except ValueError as error:
            raise TrainingError(
                f"step {step}: held-out text: {error}; resume with a lower optim.lr"
            ) from error
        lengths = followed(module, prompts_of(self.text), said, module.device)
        if not first:
            return
        assert divergence is not None
        continuation = Continuation.of(lengths, CONTINUED)
        figures = {
            "perplexity": likelihood.perplexity,
            "bits_per_byte": likelihood.bits_per_byte,
            "kl": divergence.kl,
            "kl_max": divergence.kl_max,
            "agreement": divergence.agreement,
            "followed": continuation.followed,
        }
        self.journal.write(
            "retention",
            step=step,
            stage=stage,
            logits_identical=divergence.identical,
            max_abs_difference=divergence.max_abs_difference,
            perplexity_tokens=likelihood.tokens,
            compared_tokens=divergence.tokens,
            **figures,
        )
        for logger in trainer.loggers:
            logger.log_metrics({f"retention/{k}": v for k, v in figures.items()}, step=step)
