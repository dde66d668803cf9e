"""What every strategy of ours does beside its own work: it carries the expert kernel.

``Trainer(plugins=...)`` takes no plugin of this kind, so the strategy is the plugin: the model and
its parameter names stay as they are.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins import Precision
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lightning_mono.kernels import select


class KernelStrategyMixin:
    """Gives a Lightning strategy an expert kernel; put it before the strategy in the bases.

    The kernel goes in at ``setup``: the device is known, nothing is wrapped yet, and since a
    kernel owns no parameters it does not matter whether the model is sharded already. It comes
    out at ``teardown``. One that cannot run is refused there, before the first batch.
    """

    def __init__(self, *args: Any, kernel: str = "auto", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kernel = kernel
        self._installed = ExitStack()

    def setup(self, trainer: pl.Trainer) -> None:
        module = self.lightning_module  # type: ignore[attr-defined]
        device = self.root_device  # type: ignore[attr-defined]
        dtype = computes_in(self.precision_plugin, module)  # type: ignore[attr-defined]
        mine = select.choose(self.kernel, module, device, dtype)
        choice = self.broadcast(mine)  # type: ignore[attr-defined]
        count = self._installed.enter_context(select.active(module, choice, device, dtype))
        if count:
            because = ""
            if self.kernel == "auto":
                others = select.passed_over(choice, module, device, dtype)
                because = "".join(f"; not {name}: {why}" for name, why in others.items())
            rank_zero_info(f"kernel: {choice} in {count} blocks with visual weights{because}")
        super().setup(trainer)  # type: ignore[misc]

    def teardown(self) -> None:
        super().teardown()  # type: ignore[misc]
        self._installed.close()

    def on_trainable_changed(self) -> None:
        """Called when parameters were frozen or unfrozen; most strategies need nothing."""


def computes_in(precision: Precision, module: torch.nn.Module) -> torch.dtype:
    """What a strategy's precision multiplies in; plain precision takes the weights as they are."""
    kind = str(precision.precision).split("-")[0]
    if kind == "32":
        return next((p.dtype for p in module.parameters()), torch.float32)
    return {"bf16": torch.bfloat16, "16": torch.float16, "64": torch.float64}[kind]
