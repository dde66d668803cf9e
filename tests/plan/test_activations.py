"""Bytes kept for the backward pass are those that autograd saves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shapes import CASES, TOWERS, VITS, config, counted, named, of_kind, packed, twin
from torch import Tensor

from lightning_mono.model import Batch, MonoConfig, MonoModel, VitConfig
from lightning_mono.model.config import PatchifierKind
from lightning_mono.objectives import next_token_loss
from lightning_mono.params import expand, grouped
from lightning_mono.plan.activations import (
    layer_bytes,
    loss_bytes,
    outside_bytes,
    patchifier_bytes,
)
from lightning_mono.plan.flow import flow_of
from lightning_mono.plan.numeric import NUMERIC
from lightning_mono.testing import tiny_model

DTYPES = {"32-true": torch.float32, "bf16-true": torch.bfloat16, "64-true": torch.float64}


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize(("words", "placement"), CASES, ids=named)
def test_bytes_are_those_that_autograd_saves(
    words: list[str], placement: str, precision: str, qk_norm: bool
) -> None:
    _check(words, precision, config(placement, qk_norm=qk_norm))


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("kind", ["linear", "two_conv"])
def test_bytes_of_other_patchifiers_are_those_too(kind: PatchifierKind, precision: str) -> None:
    _check(["patchifier"], precision, of_kind(config("ffn"), kind))


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("vit", VITS, ids=named)
@pytest.mark.parametrize("words", TOWERS, ids=named)
def test_bytes_of_the_modular_twin_are_those_too(
    words: list[str], vit: VitConfig, precision: str
) -> None:
    _check(words, precision, twin(vit))


def _check(words: list[str], precision: str, shape: MonoConfig) -> None:
    model, batch = tiny_model(shape).train().to(DTYPES[precision]), packed(shape)
    groups = grouped(name for name, _ in model.named_parameters())
    train = expand(words, groups)
    learns = {name for group in train for name in groups[group]}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learns)
    flow, part, numeric = flow_of(shape, train), counted(batch), NUMERIC[precision]
    planned = sum(layer_bytes(shape, flow, part, n, numeric, kernel="gathered") for n in range(3))
    planned += outside_bytes(shape, flow, part, numeric) + loss_bytes(shape, flow, part, numeric)
    planned += patchifier_bytes(shape, flow, part, numeric)
    assert planned == pytest.approx(_saved(model, batch), rel=0.03)


def _saved(model: MonoModel, batch: Batch) -> int:
    """Bytes of all storages that autograd keeps, each once, less those of parameters."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = model.hidden(batch, wanted=batch.wanted)
    # The loss has its gradients already: of the head's weights they are counted as such.
    loss: Any = next_token_loss(model, batch, hidden).grad_fn
    rows = loss.kept[0].nbytes if loss.wants_rows else 0
    return rows + sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in own)
