"""Train, ablate and study monolithic multimodal LLMs.

Names are imported when first used, so that ``import lightning_mono`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_mono import callbacks, kernels
    from lightning_mono.inference import Assistant
    from lightning_mono.model import ModalityLayout, MonoConfig, MonoModel
    from lightning_mono.module import MonoModule
    from lightning_mono.recipe import Recipe, load_recipe
    from lightning_mono.training import fit

__version__ = "0.1.0"

__all__ = [
    "Assistant",
    "ModalityLayout",
    "MonoConfig",
    "MonoModel",
    "MonoModule",
    "Recipe",
    "callbacks",
    "fit",
    "kernels",
    "load_recipe",
]

_HOMES = {
    "Assistant": "lightning_mono.inference",
    "ModalityLayout": "lightning_mono.model",
    "MonoConfig": "lightning_mono.model",
    "MonoModel": "lightning_mono.model",
    "MonoModule": "lightning_mono.module",
    "Recipe": "lightning_mono.recipe",
    "fit": "lightning_mono.training",
    "load_recipe": "lightning_mono.recipe",
}


def __getattr__(name: str) -> Any:
    if name in ("callbacks", "kernels"):
        return import_module(f"lightning_mono.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'lightning_mono' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
