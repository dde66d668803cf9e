"""A recipe of tiny shapes, and a machine that need not be measured."""

from __future__ import annotations

import pytest
import torch

from lightning_mono.bench.roofline import Gauge, Machine
from lightning_mono.bench.subject import Subject
from lightning_mono.testing import write_tiny_recipe

CPU = torch.device("cpu")
MACHINE = Machine(flops=1e9, bytes=1e9, reads=2e9, vector=1e9)


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two layers of 16 channels, FFN experts in both, an attention expert in the last."""
    return str(write_tiny_recipe(tmp_path_factory.mktemp("recipe")))


@pytest.fixture
def subject(recipe: str) -> Subject:
    return Subject.of(recipe, [], 2, CPU, torch.float32)


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares a test the large product; ``test_roofline`` measures one."""
    monkeypatch.setattr(Gauge, "__init__", lambda self, device, dtype: None)
    monkeypatch.setattr(Gauge, "measure", lambda self: None)
    monkeypatch.setattr(Gauge, "machine", MACHINE)
