"""The curriculum at work: freezes, unfreezes and sets rates as each stage begins."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

from lightning_mono.checkpoints.run import read, stage_file
from lightning_mono.data.loader import StagedLoader
from lightning_mono.errors import CheckpointError
from lightning_mono.module import MonoModule
from lightning_mono.params import canonical
from lightning_mono.stages import StageSchedule


class StageScheduler(pl.Callback):
    """Makes a :class:`StageSchedule` happen inside one ``trainer.fit``.

    Stage and rates follow from ``trainer.global_step`` alone. Entering a stage sets what trains,
    drops gradients and moments of what does not (or all moments, where the stage begins without),
    tells the strategy (DDP must wrap anew), and saves the end of the stage before it. On resume
    the optimizer is restored with the flags of the stage that saved it, then the current stage is
    entered: a checkpoint written on a boundary still belongs to the stage that ended there.

    Args:
        schedule: the stages.
        folder: where stage-end checkpoints go; None writes none.
        resume_from: the checkpoint that ``fit`` was given, if any. Lightning does not tell
            callbacks in time.
    """

    def __init__(
        self,
        schedule: StageSchedule,
        folder: Path | None = None,
        resume_from: Path | None = None,
    ) -> None:
        self.schedule = schedule
        self.folder = folder
        self.resume_from = resume_from
        self.index: int | None = None
        self._saved_step = 0

    @property
    @override
    def state_key(self) -> str:
        return "StageScheduler"

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"index": self.index, "train": list(self._train(self.index))}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.index = state_dict["index"]

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["schedule_fingerprint"] = self.schedule.fingerprint(trainer.global_step)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Runs before any strategy restores the optimizer."""
        if self.resume_from is None:
            return
        saved = read(self.resume_from)
        self._refuse_another_past(saved)
        self._saved_step = saved["global_step"]
        set_trainable(_mono(pl_module), saved["callbacks"][self.state_key]["train"])

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Runs when all that a checkpoint holds is restored."""
        if self.resume_from is not None:
            self._refuse_another_place(trainer)
        self._enter(trainer, pl_module, self.schedule.index_at(trainer.global_step))

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        index = self.schedule.index_at(step)
        if index != self.index:
            self._enter(trainer, pl_module, index)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self.schedule.lr(step, group["name"], group["below"])

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
        if self.folder is None or step not in self.schedule.ends or self.index is None:
            return
        path = stage_file(self.folder, self.schedule.stages[self.index].name, step)
        trainer.save_checkpoint(path, weights_only=False)

    def _train(self, index: int | None) -> tuple[str, ...]:
        return () if index is None else self.schedule.stages[index].train

    def _enter(self, trainer: pl.Trainer, pl_module: pl.LightningModule, index: int) -> None:
        stage, module = self.schedule.stages[index], _mono(pl_module)
        self.index = index
        module.optim, module.accumulate = stage.optim, stage.accumulate
        frozen = set_trainable(module, stage.train)
        optimizer = trainer.optimizers[0]
        for parameter in frozen:
            optimizer.state.pop(parameter, None)
        if stage.fresh and trainer.global_step == self.schedule.start(index):
            optimizer.state.clear()
        for group in optimizer.param_groups:
            group["betas"] = tuple(stage.optim.betas)
            group["eps"] = stage.optim.eps
            group["weight_decay"] = stage.optim.weight_decay if group["decays"] else 0.0
        changed = getattr(trainer.strategy, "on_trainable_changed", None)
        if changed is not None:
            changed()

    def _refuse_another_place(self, trainer: pl.Trainer) -> None:
        """A checkpoint tells its step in several places, and they have to agree.

        They do not where its steps were counted otherwise: under automatic optimization Lightning
        keeps another counter, and ours would begin at 0, in the first stage.
        """
        step, loader = self._saved_step, trainer.train_dataloader
        told = {"optimizer steps": trainer.global_step}
        if isinstance(loader, StagedLoader):
            told["batches read"] = loader.state_dict()["batches"]
        wrong = [f"{number} {what}" for what, number in told.items() if number != step]
        # On a boundary it is the stage that ended, or the next one where a bad step stopped that.
        if self.index not in {
            self.schedule.index_at(max(0, step - 1)),
            self.schedule.index_at(step),
        }:
            wrong.append(f"stage number {self.index}")
        if wrong:
            raise CheckpointError(
                f"{self.resume_from}: is named after step {step} but counts {', '.join(wrong)}; "
                "another version wrote it, or it is damaged: delete it to resume from the one "
                "before it, or begin with its weights through model.init_from"
            )

    def _refuse_another_past(self, saved: dict[str, Any]) -> None:
        step = saved["global_step"]
        if saved.get("schedule_fingerprint") != self.schedule.fingerprint(step):
            raise CheckpointError(
                f"{self.resume_from}: the recipe's stages before step {step} are not those that "
                "were run; undo the change, or start a run of another name"
            )


def set_trainable(module: MonoModule, groups: Iterable[str]) -> list[Any]:
    """Lets exactly these parameter groups learn; returns the frozen parameters.

    A frozen parameter loses its gradient as well: an optimizer would step on a stale one.
    """
    members = module.group_names()
    names = {name for group in groups for name in members[group]}
    frozen = []
    for name, parameter in module.model.named_parameters():
        learns = canonical(name) in names
        parameter.requires_grad_(learns)
        if not learns:
            parameter.grad = None
            frozen.append(parameter)
    return frozen


def _mono(pl_module: pl.LightningModule) -> MonoModule:
    if not isinstance(pl_module, MonoModule):
        raise TypeError(f"StageScheduler drives a MonoModule, not a {type(pl_module).__name__}")
    return pl_module
