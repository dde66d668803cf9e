"""The model, in plain PyTorch: lift it out and it runs without Lightning."""

from lightning_mono.model.batch import Batch
from lightning_mono.model.config import ExpertsConfig, MonoConfig, PatchifierConfig, VitConfig
from lightning_mono.model.layout import ModalityLayout
from lightning_mono.model.mono import MonoModel, MonoOutput

__all__ = [
    "Batch",
    "ExpertsConfig",
    "ModalityLayout",
    "MonoConfig",
    "MonoModel",
    "MonoOutput",
    "PatchifierConfig",
    "VitConfig",
]
