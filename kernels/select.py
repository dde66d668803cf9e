"""Choosing a kernel, saying why not another, and putting it into a model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from lightning_mono.kernels.contract import Kernel, Routed
from torch import nn

from lightning_mono.errors import RecipeError

HOMES: Mapping[str, tuple[str, str]] = {
    "masked_dense": ("masked_dense", "masked_dense"),
    "gathered": ("gathered", "gathered"),
    "grouped": ("grouped", "grouped"),
    "triton": ("fused.kernel", "fused"),
    "triton_recompute": ("fused.kernel", "recomputing"),
}
"""Kernel -> its module below this package, which is imported only when needed, and its name there.

A module whose kernel does not run everywhere has a ``why_not(blocks, device, dtype)`` as well.
"""


class _Kernels(Mapping[str, Kernel]):
    """Name -> kernel; looking one up imports it, and nothing else does."""

    def __getitem__(self, name: str) -> Kernel:
        return getattr(_home(name), HOMES[name][1])

    def __contains__(self, name: object) -> bool:
        return name in HOMES

    def __iter__(self) -> Iterator[str]:
        return iter(HOMES)

    def __len__(self) -> int:
        return len(HOMES)


KERNELS: Mapping[str, Kernel] = _Kernels()

BEST: Mapping[str, tuple[str, ...]] = {"cuda": ("triton", "grouped", "gathered")}
"""What ``auto`` tries on a kind of device, the fastest first; on any other it is ``gathered``."""


def why_not(
    name: str, device: torch.device, dtype: torch.dtype, model: nn.Module | None = None
) -> str | None:
    """Says in a few words why a kernel cannot run, or returns None where it can.

    Args:
        device: where the model will be; it need not be there yet.
        dtype: what is multiplied, which under autocast is not that of the weights.
        model: whose blocks it would serve; None asks about device and dtype alone.
    """
    if name not in KERNELS:
        raise ValueError(f"no kernel {name!r}")
    if name.startswith("triton"):
        if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            return f"it needs a CUDA GPU and this is a {device.type} device"
        if find_spec("triton") is None:
            return "the package triton is not installed"
    reason = getattr(_home(name), "why_not", None)
    return None if reason is None else reason(blocks(model), device, dtype)


def choose(
    name: str,
    model: nn.Module | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> str:
    """Turns ``auto`` into the fastest kernel that runs, and refuses one that cannot.

    Args:
        model: whose blocks it is to serve.
        device, dtype: where, and in what; by default the model's own, or this machine's.

    Raises:
        RecipeError: there is no such kernel, or it cannot run here.
    """
    device, dtype = _place(model, device, dtype)
    best = BEST.get(device.type, ("gathered",))
    if name == "auto":
        return next(kernel for kernel in best if why_not(kernel, device, dtype, model) is None)
    if name not in KERNELS:
        raise RecipeError(f"no kernel {name!r}; there are auto, {', '.join(KERNELS)}")
    reason = why_not(name, device, dtype, model)
    if reason is not None:
        instead = choose("auto", model, device, dtype)
        raise RecipeError(f"kernel {name} cannot run: {reason}; use {instead}, or auto")
    return name


def passed_over(
    choice: str, model: nn.Module, device: torch.device, dtype: torch.dtype
) -> dict[str, str]:
    """Kernels that would be faster where they run -> why ``auto`` did not choose them here."""
    faster = BEST["cuda"][: BEST["cuda"].index(choice)]
    reasons = {name: why_not(name, device, dtype, model) for name in faster}
    return {name: why or f"it gains nothing on {device.type}" for name, why in reasons.items()}


def blocks(model: nn.Module | None) -> list[Routed]:
    """The blocks of a model that have visual weights, and so call a kernel."""
    modules = () if model is None else model.modules()
    return [m for m in modules if isinstance(m, Routed) and m.visual is not None]


def use(
    model: nn.Module,
    name: str,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> int:
    """Puts a kernel into every routed block of ``model``, in place.

    Args:
        device, dtype: where the model will run, and in what; by default where and what it is.

    Returns:
        The number of blocks that have visual weights, and so call it.

    Raises:
        RecipeError: there is no such kernel, or it cannot run there.
    """
    kernel = KERNELS[choose(name, model, device, dtype)]
    for module in model.modules():
        if isinstance(module, Routed):
            module.kernel = kernel
    return len(blocks(model))


@contextmanager
def active(
    model: nn.Module,
    name: str,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Iterator[int]:
    """Uses a kernel inside a ``with`` block and puts the former ones back after it.

    Arguments, value and errors are those of :func:`use`.
    """
    before = [(m, m.kernel) for m in model.modules() if isinstance(m, Routed)]
    count = use(model, name, device, dtype)
    try:
        yield count
    finally:
        for block, kernel in before:
            block.kernel = kernel


def _home(name: str) -> ModuleType:
    return import_module(f"lightning_mono.kernels.{HOMES[name][0]}")


def _place(
    model: nn.Module | None, device: torch.device | None, dtype: torch.dtype | None
) -> tuple[torch.device, torch.dtype]:
    first = next(model.parameters(), None) if model is not None else None
    if device is None:
        here = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(here) if first is None else first.device
    if dtype is None:
        dtype = torch.float32 if first is None else first.dtype
    return device, dtype
