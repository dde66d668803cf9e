"""The LightningModule: loss and optimizer groups; it knows nothing of stages or kernels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lightning_mono.model import Batch, MonoModel
from lightning_mono.objectives import next_token_loss
from lightning_mono.params import canonical, grouped
from lightning_mono.stages import Optim


class MonoModule(pl.LightningModule):
    """Trains a :class:`MonoModel` on next tokens.

    Args:
        model: the model; its parameters appear under ``model.``.
        train: the parameter groups that any stage trains. All of them get their optimizer group
            at once: AdamW allocates moments when a parameter first gets a gradient, so a group
            that is frozen for now costs nothing, and none is ever added later.
        optim: settings that hold for the whole run; learning rates are set by the stages.
    """

    def __init__(self, model: MonoModel, train: Iterable[str], optim: Optim) -> None:
        super().__init__()
        self.model = model
        self.train_groups = tuple(train)
        self.optim = optim

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = next_token_loss(self.model, batch, self.model.hidden(batch))
        self.log("train/loss", loss.detach(), on_step=True, batch_size=1)
        return loss

    def group_names(self) -> dict[str, list[str]]:
        """Parameter group -> names of the model's parameters in it."""
        return grouped(canonical(name) for name, _ in self.model.named_parameters())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimizer group a parameter group, two where some of it takes no weight decay."""
        parameters = {canonical(n): p for n, p in self.model.named_parameters()}
        groups: list[dict[str, Any]] = []
        for group, names in self.group_names().items():
            if group not in self.train_groups:
                continue
            for decays in (True, False):
                members = [parameters[n] for n in names if _decays(n) == decays]
                if members:
                    decay = self.optim.weight_decay if decays else 0.0
                    groups.append(
                        {"params": members, "name": group, "decays": decays, "weight_decay": decay}
                    )
        return torch.optim.AdamW(
            groups, lr=self.optim.lr, betas=self.optim.betas, eps=self.optim.eps
        )


def _decays(name: str) -> bool:
    """Matrices decay; biases, norms and position tables do not."""
    return not (name.endswith(".bias") or "norm" in name or name == "patchifier.positions")
