"""Strategies by name, for recipes and for ``Trainer(strategy=...)``."""

from __future__ import annotations

import torch
from lightning.pytorch.strategies import Strategy, StrategyRegistry

from lightning_mono.strategies.devices import MonoDDPStrategy, MonoSingleDeviceStrategy
from lightning_mono.strategies.fsdp import MonoFSDPStrategy
from lightning_mono.strategies.fsdp2 import MonoFSDP2Strategy

STRATEGIES = {
    "mono_single": MonoSingleDeviceStrategy,
    "mono_ddp": MonoDDPStrategy,
    "mono_fsdp": MonoFSDPStrategy,
    "mono_fsdp2": MonoFSDP2Strategy,
}


def build_strategy(name: str, kernel: str, accelerator: str, devices: int) -> Strategy:
    """The strategy of a recipe; ``auto`` is one device, or DDP over several.

    Raises:
        RecipeError: the strategy cannot be had.
    """
    if name == "auto":
        name = "mono_single" if devices == 1 else "mono_ddp"
    if name != "mono_single":
        return STRATEGIES[name](kernel=kernel)
    on_gpu = torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda")
    return MonoSingleDeviceStrategy("cuda:0" if on_gpu else "cpu", kernel=kernel)


def register() -> None:
    """Makes the strategies known to ``Trainer(strategy=...)`` by name."""
    for name, strategy in STRATEGIES.items():
        description = f"{(strategy.__doc__ or '').splitlines()[0]} With an expert kernel."
        StrategyRegistry.register(name, strategy, description=description, override=True)
