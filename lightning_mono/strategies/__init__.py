"""Lightning strategies that carry the expert kernel."""

from lightning_mono.strategies.kernel import (
    KernelStrategyMixin,
    MonoDDPStrategy,
    MonoSingleDeviceStrategy,
    build_strategy,
    register,
)

register()

__all__ = [
    "KernelStrategyMixin",
    "MonoDDPStrategy",
    "MonoSingleDeviceStrategy",
    "build_strategy",
]
