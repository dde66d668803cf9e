"""Choosing a kernel and putting it into a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from lightning_mono.kernels.contract import Kernel, Routed
from lightning_mono.kernels.gathered import gathered
from lightning_mono.kernels.masked_dense import masked_dense
from torch import nn

from lightning_mono.errors import RecipeError

KERNELS: Mapping[str, Kernel] = MappingProxyType(
    {"masked_dense": masked_dense, "gathered": gathered}
)


def choose(name: str) -> str:
    """Turns ``auto`` into the fastest kernel that runs here, and refuses unknown names."""
    if name == "auto":
        return "gathered"
    if name not in KERNELS:
        raise RecipeError(f"no kernel {name!r}; there are auto, {', '.join(KERNELS)}")
    return name


def use(model: nn.Module, name: str) -> int:
    """Puts a kernel into every routed block of ``model``, in place.

    Returns:
        The number of blocks that have visual weights, and so call it.
    """
    kernel = KERNELS[choose(name)]
    routed = [m for m in model.modules() if isinstance(m, Routed)]
    for block in routed:
        block.kernel = kernel
    return sum(block.visual is not None for block in routed)


@contextmanager
def active(model: nn.Module, name: str) -> Iterator[None]:
    """Uses a kernel inside a ``with`` block and puts the former ones back after it."""
    before = [(m, m.kernel) for m in model.modules() if isinstance(m, Routed)]
    use(model, name)
    try:
        yield
    finally:
        for block, kernel in before:
            block.kernel = kernel
