"""A recipe's Trainer: strategy, callbacks in their order, and the loader of all stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_mono.callbacks.attention import AttentionMeasures
from lightning_mono.callbacks.average import WeightAverage
from lightning_mono.callbacks.checkpoints import PeriodicCheckpoint
from lightning_mono.callbacks.finite import FiniteGuard
from lightning_mono.callbacks.journal import JournalCallback
from lightning_mono.callbacks.order import OrderMark
from lightning_mono.callbacks.progress import StageProgress
from lightning_mono.callbacks.retention import TextRetention
from lightning_mono.callbacks.stages import StageScheduler
from lightning_mono.callbacks.vocabulary import VocabularyMark
from lightning_mono.checkpoints.run import AtomicCheckpointIO
from lightning_mono.data.loader import StageData, StagedLoader, stage_loader
from lightning_mono.journal import Journal
from lightning_mono.model import Batch
from lightning_mono.recipe import Recipe
from lightning_mono.retention.text import HeldOut
from lightning_mono.runs import RunFolder
from lightning_mono.stages import StageSchedule
from lightning_mono.strategies import build_strategy


def build_callbacks(
    recipe: Recipe,
    run: RunFolder,
    journal: Journal,
    schedule: StageSchedule,
    *,
    newest: Path | None,
    vocabulary: str,
    order: Mapping[str, str],
    text: HeldOut | None,
) -> list[pl.Callback]:
    """What happens during a run, in the order in which it happens at each step.

    What measures a step comes before what saves: a checkpoint holds all that was learnt and noted.

    Args:
        newest: the checkpoint that the run goes on from, if any.
        vocabulary: the tokenizer's mark.
        order: the mark of each data set.
        text: held-out text, where the language is to be watched.
    """
    section = recipe.trainer
    callbacks: list[pl.Callback] = [StageProgress(schedule)]
    if section.ema is not None:
        callbacks.append(WeightAverage(section.ema))
    callbacks.append(JournalCallback(journal, schedule, section.log_every))
    if text is not None:
        every = recipe.evaluation.retention_every
        callbacks.append(TextRetention(text, journal, schedule, run.reference, every))
    callbacks += [
        VocabularyMark(vocabulary),
        OrderMark(schedule, order, newest),
        StageScheduler(schedule, run.checkpoints, newest),
        FiniteGuard(run.checkpoints, journal),
    ]
    if recipe.model.patchifier is not None and section.attention_every:
        callbacks.append(AttentionMeasures(journal, section.attention_every))
    return [*callbacks, PeriodicCheckpoint(run.checkpoints, section.checkpoint_every)]


def build_trainer(
    recipe: Recipe, run: RunFolder, schedule: StageSchedule, callbacks: list[pl.Callback]
) -> pl.Trainer:
    """One that runs a whole schedule in one fit."""
    section = recipe.trainer
    return pl.Trainer(
        accelerator=section.accelerator,
        devices=section.devices,
        strategy=build_strategy(
            section.strategy, section.kernel, section.accelerator, section.devices
        ),
        # Lightning's own casts would take the batch along, whose loss weights are to stay fp32.
        precision="bf16-mixed" if section.precision == "bf16-mixed" else "32-true",
        plugins=[AtomicCheckpointIO()],
        max_steps=schedule.total_steps,
        max_epochs=-1,  # the steps decide; the loader is one long epoch
        logger=TensorBoardLogger(run.path, name="tensorboard", version=""),
        callbacks=callbacks,
        log_every_n_steps=section.log_every,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def build_loader(
    recipe: Recipe, trainer: pl.Trainer, schedule: StageSchedule, data: Mapping[str, StageData]
) -> StagedLoader:
    """The batches of all stages, this process' share of them."""

    def batches(data: StageData, workers: int) -> Callable[[int], Iterable[Batch]]:
        return lambda start: stage_loader(
            data,
            start=start,
            rank=trainer.global_rank,
            world=trainer.world_size,
            workers=workers,
        )

    return StagedLoader(
        [
            (batches(data[stage.data], recipe.data[stage.data].workers), stage.steps)
            for stage in schedule.stages
        ]
    )
