"""Train, ablate and study monolithic multimodal LLMs.

Names are imported when first used, so that ``import lightning_mono`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "MonoModel": "lightning_mono.model",
    "MonoConfig": "lightning_mono.model",
    "ModalityLayout": "lightning_mono.model",
    "Assistant": "lightning_mono.inference",
    "MonoModule": "lightning_mono.module",
    "Recipe": "lightning_mono.recipe",
    "load_recipe": "lightning_mono.recipe",
    "fit": "lightning_mono.fit",
    "kernels": "",
    "callbacks": "",
}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from lightning_mono import callbacks, kernels
    from lightning_mono.fit import fit
    from lightning_mono.inference import Assistant
    from lightning_mono.model import ModalityLayout, MonoConfig, MonoModel
    from lightning_mono.module import MonoModule
    from lightning_mono.recipe import Recipe, load_recipe


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lightning_mono' has no attribute {name!r}")
    home = _HOMES[name]
    if not home:
        return import_module(f"lightning_mono.{name}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
