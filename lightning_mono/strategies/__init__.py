"""Lightning strategies that carry the expert kernel."""

from lightning_mono.strategies.build import build_strategy, register
from lightning_mono.strategies.devices import MonoDDPStrategy, MonoSingleDeviceStrategy
from lightning_mono.strategies.fsdp import MonoFSDPStrategy
from lightning_mono.strategies.fsdp2 import MonoFSDP2Strategy
from lightning_mono.strategies.kernel import KernelStrategyMixin
from lightning_mono.strategies.shards import is_sharded

register()

__all__ = [
    "KernelStrategyMixin",
    "MonoDDPStrategy",
    "MonoFSDP2Strategy",
    "MonoFSDPStrategy",
    "MonoSingleDeviceStrategy",
    "build_strategy",
    "is_sharded",
]
