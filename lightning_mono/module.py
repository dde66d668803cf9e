"""The LightningModule: one optimizer step on a batch; it knows nothing of stages or kernels."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from typing import Any, cast

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor

from lightning_mono.gradients import clip, norms_by_group, read_scalars
from lightning_mono.model import Batch, MonoModel, MonoOutput
from lightning_mono.model.quantised import bitsandbytes
from lightning_mono.model.rows import split
from lightning_mono.objectives import next_token_loss
from lightning_mono.params import canonical, grouped, layers_below
from lightning_mono.stages import Optim


class MonoModule(pl.LightningModule):
    """Trains a :class:`MonoModel` on next tokens, one optimizer step a batch.

    Lightning calls this manual optimization. Its own accumulation counts batches from the run's
    start, which does not fit stages that differ in it, and divides losses by a number of batches
    where the step's weights are what they have to be divided by.

    Args:
        model: the model; its parameters appear under ``model.``.
        optim: settings to start with; the stages set their own.
        by_layer: give each layer optimizer groups of its own, so that rates can fall with depth.

    Attributes:
        accumulate: parts that a batch is computed in, one after the other, to save memory. The
            step is the same in any number of them.
        loss: of the last step before its update, over all devices.
        grad_norms: of the last step by parameter group, before clipping.

    Both are plain numbers. They are read together, once a step and before its update, and all that
    looks at a step looks at these: each look at a device waits until all it has to do is done.
    """

    forward_methods = ("part_loss",)
    """Methods beside ``forward`` that run layers; a strategy that shards them has to know."""

    def __init__(self, model: MonoModel, optim: Optim, *, by_layer: bool = False) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.optim = optim
        self.by_layer = by_layer
        self.accumulate = 1
        self.loss = 0.0
        self.grad_norms: dict[str, float] = {}

    def forward(self, *args: Any, **kwargs: Any) -> MonoOutput | Tensor:
        """What the model gives: for ids its output, for a batch its hidden states.

        Callbacks read through here: a strategy may have sharded it.
        """
        if isinstance(args[0], Batch):
            return self.model.hidden(*args, **kwargs)
        return self.model(*args, **kwargs)

    # -- a step -----------------------------------------------------------------------------

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """A batch that is computed in parts goes to the device part by part."""
        return batch if self.accumulate > 1 else batch.to(device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Forward, backward, clipping, update. Returns the loss over all devices."""
        optimizer = cast(LightningOptimizer, self.optimizers())
        optimizer.zero_grad()
        weight = self._mean(batch.weights.sum().to(self.device))
        losses = []
        for number, part in enumerate(split(batch, self.accumulate), 1):
            loss = self.part_loss(part.to(self.device), weight)
            self._backward(loss, last=number == self.accumulate)
            losses.append(loss.detach())
        total = self._mean(torch.stack(losses).sum())
        norms = norms_by_group(optimizer.param_groups)
        clip(optimizer.param_groups, norms, self.optim.grad_clip)
        self.loss, *each = read_scalars([total, *norms.values()])
        self.grad_norms = dict(zip(norms, each, strict=True))
        optimizer.step()
        return total

    def part_loss(self, batch: Batch, weight: Tensor) -> Tensor:
        """A part's share in the loss of a step whose targets weigh ``weight``; a scalar."""
        return next_token_loss(
            self.model, batch, self.model.hidden(batch, wanted=batch.wanted), weight
        )

    def _backward(self, loss: Tensor, *, last: bool) -> None:
        """Adds to the gradients; devices exchange them once a step, with its last part."""
        strategy = self.trainer.strategy
        sync: AbstractContextManager[None] = nullcontext()
        if isinstance(strategy, ParallelStrategy) and not last:
            sync = strategy.block_backward_sync()
        # Mixed precision is for the way forward; the way back follows by itself.
        with sync, torch.autocast(self.device.type, enabled=False):
            self.manual_backward(loss)

    def _mean(self, value: Tensor) -> Tensor:
        """The mean over all devices, which they need not wait for: a strategy's own would."""
        if self.trainer.world_size == 1:
            return value
        dist.all_reduce(value)
        return value / self.trainer.world_size

    # -- the optimizer ----------------------------------------------------------------------

    def group_names(self) -> dict[str, list[str]]:
        """Parameter group -> names of the model's parameters in it."""
        return grouped(canonical(name) for name, _ in self.model.named_parameters())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimizer group a parameter group, two where some of it takes no weight decay.

        All of them are there from the start, trained or not: AdamW allocates moments when a
        parameter first gets a gradient, so what is frozen costs nothing, and a checkpoint fits
        whatever stages come later.
        """
        parameters = {canonical(n): p for n, p in self.model.named_parameters()}
        groups = [
            {
                **settings,
                "params": [parameters[name] for name in names],
                "weight_decay": self.optim.weight_decay if settings["decays"] else 0.0,
            }
            for settings, names in self._optimizer_groups()
        ]
        kind: Any = torch.optim.AdamW
        if self.optim.name == "adamw8bit":
            kind = bitsandbytes("optim").AdamW8bit
        return kind(groups, lr=self.optim.lr, betas=self.optim.betas, eps=self.optim.eps)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Cuts saved optimizer groups as ours are: by layer or not, parameters have one order."""
        for state in checkpoint.get("optimizer_states", []):
            owner = {n: group for group in state["param_groups"] for n in group["params"]}
            numbers = iter(list(owner))
            groups = []
            for settings, names in self._optimizer_groups():
                mine = [next(numbers) for _ in names]
                groups.append({**owner[mine[0]], **settings, "params": mine})
            state["param_groups"] = groups

    def _optimizer_groups(self) -> list[tuple[dict[str, Any], list[str]]]:
        """Settings and names of each optimizer group, in a fixed order of the parameters."""
        layers = self.model.config.decoder.layers
        groups = []
        for group, members in self.group_names().items():
            for decays in (True, False):
                names = [name for name in members if _decays(name) == decays]
                for below, run in groupby(names, lambda name: self._below(name, layers)):
                    groups.append(({"name": group, "decays": decays, "below": below}, list(run)))
        return groups

    def _below(self, name: str, layers: int) -> int:
        return layers_below(name, layers) if self.by_layer else 0


def _decays(name: str) -> bool:
    """Matrices decay; biases, norms, position tables and what else is no matrix do not."""
    last = name.rpartition(".")[2]
    vectors = ("positions", "class_embedding", "class_position", "attention_scale", "mlp_scale")
    return not (last == "bias" or "norm" in name or last in vectors)
