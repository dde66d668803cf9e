"""Lightning strategies that put an expert kernel into the model when it is set up.

``Trainer(plugins=...)`` takes no plugin of this kind, so the strategy is the plugin: the model and
its parameter names stay as they are.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, StrategyRegistry
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from typing_extensions import override

from lightning_mono import kernels


class KernelStrategyMixin:
    """Gives a Lightning strategy an expert kernel; put it before the strategy in the bases.

    The kernel goes in at ``setup``: the device is known, nothing is wrapped yet, and since a
    kernel owns no parameters it does not matter whether the model is sharded already. It comes
    out at ``teardown``.
    """

    def __init__(self, *args: Any, kernel: str = "auto", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kernel = kernel
        self._installed = ExitStack()

    def setup(self, trainer: pl.Trainer) -> None:
        choice = self.broadcast(kernels.choose(self.kernel))  # type: ignore[attr-defined]
        module = self.lightning_module  # type: ignore[attr-defined]
        self._installed.enter_context(kernels.active(module, choice))
        blocks = sum(
            isinstance(m, kernels.Routed) and m.visual is not None for m in module.modules()
        )
        if blocks:
            rank_zero_info(f"kernel: {choice} in {blocks} blocks with visual weights")
        super().setup(trainer)  # type: ignore[misc]

    def teardown(self) -> None:
        super().teardown()  # type: ignore[misc]
        self._installed.close()

    def on_trainable_changed(self) -> None:
        """Called when parameters were frozen or unfrozen; single devices need nothing."""


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


def build_strategy(
    name: str, kernel: str, accelerator: str, devices: int
) -> pl.strategies.Strategy:
    """The strategy of a recipe; ``auto`` is one device, or DDP over several."""
    if name == "auto":
        name = "mono_single" if devices == 1 else "mono_ddp"
    if name == "mono_ddp":
        return MonoDDPStrategy(kernel=kernel)
    on_gpu = torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda")
    return MonoSingleDeviceStrategy("cuda:0" if on_gpu else "cpu", kernel=kernel)


def register() -> None:
    """Makes the strategies known to ``Trainer(strategy=...)`` by name."""
    for name, strategy in (
        ("mono_single", MonoSingleDeviceStrategy),
        ("mono_ddp", MonoDDPStrategy),
    ):
        description = f"{strategy.__doc__} With an expert kernel."
        StrategyRegistry.register(name, strategy, description=description, override=True)
