"""The older way of sharding, which is known by name and refused."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.strategies import FSDPStrategy

from lightning_mono.errors import RecipeError


class MonoFSDPStrategy(FSDPStrategy):
    """FSDP1: refused, for its checkpoints cannot be resumed from; ``mono_fsdp2`` shards instead.

    Seen with Lightning 2.6.6 and torch 2.15, two processes on gloo: losses follow those of one
    process through a stage that unfreezes, but in every saved optimizer state ``exp_avg`` equals
    ``exp_avg_sq``; clipping by norm raises; batches that hold a frozen dataclass raise.

    Raises:
        RecipeError: always.
    """

    def __init__(self, **kwargs: Any) -> None:
        raise RecipeError(
            "trainer.strategy: mono_fsdp (FSDP1) saves wrong optimizer moments and cannot clip "
            "gradients by norm; use mono_fsdp2"
        )
