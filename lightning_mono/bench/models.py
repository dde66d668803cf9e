"""The models of a benchmark, each built when it is first asked for."""

from __future__ import annotations

from functools import cached_property

from lightning_mono.bench.names import TRANSFORMERS, TWIN
from lightning_mono.bench.subject import Subject, random_model
from lightning_mono.bench.twin import InTransformers, twin_config
from lightning_mono.model import MonoModel


class Models:
    """Ours, its modular twin, and the twin's weights in transformers."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    @cached_property
    def mono(self) -> MonoModel:
        return random_model(self.subject.config, self.subject.device, self.subject.dtype)

    @cached_property
    def twin(self) -> MonoModel:
        return random_model(twin_config(self.subject), self.subject.device, self.subject.dtype)

    @cached_property
    def elsewhere(self) -> InTransformers:
        return InTransformers(self.twin)

    def weights(self, contestant: str) -> int:
        """Bytes of the model that a contestant runs."""
        model = self.twin if contestant in (TWIN, TRANSFORMERS) else self.mono
        return sum(p.numel() * p.itemsize for p in model.parameters())
