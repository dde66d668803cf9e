"""One device, or several that each hold the whole model."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from typing_extensions import override

from lightning_mono.strategies.kernel import KernelStrategyMixin


class MonoSingleDeviceStrategy(KernelStrategyMixin, SingleDeviceStrategy):
    """One device."""

    def __init__(self, device: str | torch.device | None = None, **kwargs: Any) -> None:
        if device is None:
            device = "cuda:0" if torch.cuda.is_available() else "cpu"
        super().__init__(device=device, **kwargs)


class MonoDDPStrategy(KernelStrategyMixin, DDPStrategy):
    """Several devices, each with the whole model."""

    @override
    def on_trainable_changed(self) -> None:
        """DDP reduces what trained when it wrapped the model, and nothing else: wrap again."""
        self.model = self.lightning_module
        self.configure_ddp()
