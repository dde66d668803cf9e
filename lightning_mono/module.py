"""The LightningModule: loss and optimizer groups; it knows nothing of stages or kernels."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lightning_mono.model import Batch, MonoModel, MonoOutput
from lightning_mono.model.quantised import bitsandbytes
from lightning_mono.objectives import next_token_loss
from lightning_mono.params import canonical, grouped
from lightning_mono.stages import Optim


class MonoModule(pl.LightningModule):
    """Trains a :class:`MonoModel` on next tokens.

    Args:
        model: the model; its parameters appear under ``model.``.
        optim: settings to start with; the stages set their own.
    """

    def __init__(self, model: MonoModel, optim: Optim) -> None:
        super().__init__()
        self.model = model
        self.optim = optim

    def forward(self, *args: Any, **kwargs: Any) -> MonoOutput:
        """What the model gives. Callbacks read through here: a strategy may have sharded it."""
        return self.model(*args, **kwargs)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        weight = batch.weights.sum()
        if self.trainer.world_size > 1:
            weight = self.trainer.strategy.reduce(weight, reduce_op="mean")
        loss = next_token_loss(self.model, batch, self.model.hidden(batch), weight)
        self.log("train/loss", loss.detach(), on_step=True, batch_size=1)
        return loss

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
        groups: list[dict[str, Any]] = []
        for group, names in self.group_names().items():
            for decays in (True, False):
                members = [parameters[n] for n in names if _decays(n) == decays]
                if members:
                    decay = self.optim.weight_decay if decays else 0.0
                    groups.append(
                        {"params": members, "name": group, "decays": decays, "weight_decay": decay}
                    )
        kind: Any = torch.optim.AdamW
        if self.optim.name == "adamw8bit":
            kind = bitsandbytes("optim").AdamW8bit
        return kind(groups, lr=self.optim.lr, betas=self.optim.betas, eps=self.optim.eps)


def _decays(name: str) -> bool:
    """Matrices decay; biases, norms and position tables do not."""
    return not (name.endswith(".bias") or "norm" in name or name == "patchifier.positions")
