"""Train, ablate and study monolithic multimodal LLMs.

Names are imported when first used, so that ``import lightning_mono`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_mono import callbacks, kernels
    from lightning_mono.backbones import load_backbone
    from lightning_mono.conversation import Conversation
    from lightning_mono.inference import Assistant
    from lightning_mono.model import (
        ExpertsConfig,
        ModalityLayout,
        MonoConfig,
        MonoModel,
        PatchifierConfig,
        VitConfig,
    )
    from lightning_mono.module import MonoModule
    from lightning_mono.recipe import Recipe, load_recipe
    from lightning_mono.training import fit

__version__ = "0.1.0"

__all__ = [
    "Assistant",
    "Conversation",
    "ExpertsConfig",
    "ModalityLayout",
    "MonoConfig",
    "MonoModel",
    "MonoModule",
    "PatchifierConfig",
    "Recipe",
    "VitConfig",
    "callbacks",
    "fit",
    "kernels",
    "load_backbone",
    "load_recipe",
]

_HOMES = {
    "Assistant": "lightning_mono.inference",
    "Conversation": "lightning_mono.conversation",
    "ExpertsConfig": "lightning_mono.model",
    "ModalityLayout": "lightning_mono.model",
    "MonoConfig": "lightning_mono.model",
    "MonoModel": "lightning_mono.model",
    "MonoModule": "lightning_mono.module",
    "PatchifierConfig": "lightning_mono.model",
    "Recipe": "lightning_mono.recipe",
    "VitConfig": "lightning_mono.model",
    "fit": "lightning_mono.training",
    "load_backbone": "lightning_mono.backbones",
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
