"""Giving a model that was built without memory its weights."""

from __future__ import annotations

from torch import Tensor, nn


def assign(model: nn.Module, name: str, value: Tensor) -> None:
    """Makes ``value`` itself the parameter or buffer of this name.

    Raises:
        ValueError: it has another shape.
    """
    owner_name, _, leaf = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    old = getattr(owner, leaf)
    if value.shape != old.shape:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}, the config says {tuple(old.shape)}"
        )
    setattr(owner, leaf, nn.Parameter(value) if isinstance(old, nn.Parameter) else value)
