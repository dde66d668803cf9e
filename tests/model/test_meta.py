"""A model without memory is the same model, and costs neither memory nor time."""

from __future__ import annotations

import subprocess
import sys

import torch

from lightning_mono.model import MonoModel
from lightning_mono.model.meta import on_meta
from lightning_mono.testing import tiny_config

BUILD = """
import sys
from lightning_mono.model import MonoModel
from lightning_mono.model.meta import on_meta
from lightning_mono.testing import tiny_config
with on_meta():
    MonoModel(tiny_config())
print(sorted({"torch._dynamo", "sympy"} & set(sys.modules)))
"""


def test_names_and_shapes_are_those_of_a_model_with_memory() -> None:
    with on_meta():
        bare = MonoModel(tiny_config())
    whole = MonoModel(tiny_config())
    assert {n: p.shape for n, p in bare.named_parameters()} == {
        n: p.shape for n, p in whole.named_parameters()
    }
    assert all(parameter.is_meta for parameter in bare.parameters())


def test_initialisation_is_back_afterwards() -> None:
    with on_meta():
        torch.nn.Linear(2, 2)
    assert torch.nn.Linear(64, 64).weight.std() > 0.01


def test_the_compiler_is_not_imported() -> None:
    done = subprocess.run([sys.executable, "-c", BUILD], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
