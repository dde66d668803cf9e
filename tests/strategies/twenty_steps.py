"""Trains a tiny model for twenty steps, once for each job on the command line.

The tests of this folder run it as a script, ``twenty_steps.py FOLDER JOB ...``. A job is
``NAME STRATEGY KERNEL DTYPE RESUME`` in one argument, with ``-`` where it starts anew; it leaves
its losses and checkpoints in FOLDER/NAME. Names with ``twin`` in them have a vision transformer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning_mono.callbacks.stages import StageScheduler

from lightning_mono.checkpoints.run import AtomicCheckpointIO
from lightning_mono.data.loader import StagedLoader
from lightning_mono.model import Batch, MonoConfig, PatchifierConfig, VitConfig
from lightning_mono.module import MonoModule
from lightning_mono.params import expand
from lightning_mono.stages import Optim, Stage, StageSchedule
from lightning_mono.strategies import build_strategy
from lightning_mono.testing import IMAGE, tiny_batch, tiny_config, tiny_model

OPTIM = Optim(lr=1e-2, eps=1e-4, warmup_steps=2, schedule="cosine", min_lr_ratio=0.1, grad_clip=0.5)
VISUAL = ("patchifier", "experts.ffn")
SCHEDULE = StageSchedule(
    (
        Stage("concept", 6, VISUAL, "rows", OPTIM),
        Stage("semantic", 8, (*VISUAL, "experts.attention", "attention"), "rows", OPTIM),
        Stage("everything", 6, ("experts.norms", "ffn", "norms", "embeddings"), "rows", OPTIM),
    )
)
VIT = PatchifierConfig(16, 4, 8, kind="vit", vit=VitConfig(layers=2, heads=2, layer_scale=1.0))
MIDDLE = 9
"""A step inside a stage after which the whole state is saved, beside that at every stage's end."""

TILE = [IMAGE] * 4
ROWS = (
    [[[5, *TILE, 7, 9, 11]]],
    [[[8, 9, 10, 12, 13]], [[7, 6, 5]]],
    [[[*TILE, 30, 31, 32], [4, 5]]],
    [[[20, 21, 22, 23, 24, 25, 26]]],
    [[[40, 41, *TILE, 42]], [[*TILE, 50]]],
)
"""Documents by row; rows without images meet rows with some, so that processes differ in kind."""


def batch_at(step: int, rank: int, world: int, config: MonoConfig) -> Batch:
    """The share of a rank in a step's two rows, which are the same for any number of ranks."""
    chosen = [(ROWS[step % 5], 2 * step), (ROWS[(2 * step + 1) % 5], 2 * step + 1)][rank::world]
    pixels = [tiny_batch([row], config, seed=seed).pixel_values for row, seed in chosen]
    return tiny_batch([row for row, _ in chosen], config, pixel_values=torch.cat(pixels))


class Watch(pl.Callback):
    """Keeps the loss of all ranks together, and saves in the middle of a stage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(
            float(trainer.strategy.reduce(outputs["loss"].detach(), reduce_op="mean"))
        )
        if trainer.global_step == MIDDLE:
            trainer.save_checkpoint(self.folder / "middle.ckpt", weights_only=False)


def run(folder: Path, strategy: str, kernel: str, dtype: torch.dtype, resume: Path | None) -> None:
    """One job in this process; where there are two, the other one does the same."""
    # Sizes that every kernel takes: multiples of 16.
    config = tiny_config(tied=True, hidden_size=32, head_dim=8, ffn_size=48)
    if "twin" in folder.name:
        config = replace(config, patchifier=VIT)
    module = MonoModule(tiny_model(config, dtype=dtype).train(), OPTIM)
    groups = module.group_names()
    schedule = StageSchedule(
        tuple(replace(stage, train=expand(stage.train, groups)) for stage in SCHEDULE.stages)
    )
    devices = 1 if strategy == "mono_single" else 2
    watch = Watch(folder)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=build_strategy(strategy, kernel, "cpu", devices),
        plugins=[AtomicCheckpointIO()],
        max_steps=schedule.total_steps,
        max_epochs=-1,
        callbacks=[StageScheduler(schedule, folder, resume), watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )

    def batches(first: int) -> Callable[[int], Iterator[Batch]]:
        """The batches of the stage that begins at step ``first``, from its n-th on."""
        return lambda n: (
            batch_at(step, trainer.global_rank, devices, config)
            for step in range(first + n, schedule.total_steps)
        )

    stages = [(batches(schedule.start(i)), stage.steps) for i, stage in enumerate(schedule.stages)]
    trainer.fit(module, StagedLoader(stages), ckpt_path=resume, weights_only=True)
    if trainer.is_global_zero:
        (folder / "losses.json").write_text(json.dumps(watch.losses))


def main(out: Path, jobs: list[str]) -> None:
    for job in jobs:
        name, strategy, kernel, dtype, resume = job.split()
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        start = None if resume == "-" else out / resume
        run(folder, strategy, kernel, getattr(torch, dtype), start)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
