"""Kernels are exchanged in place; nothing that is saved or trained notices."""

from __future__ import annotations

import pytest
import torch

from lightning_mono import kernels
from lightning_mono.errors import RecipeError
from lightning_mono.model import ExpertsConfig
from lightning_mono.model.experts import Experts
from lightning_mono.testing import tiny_config, tiny_model


def _in_use(model: torch.nn.Module) -> set[object]:
    return {m.kernel for m in model.modules() if isinstance(m, Experts)}


@pytest.mark.parametrize("name", kernels.KERNELS)
def test_use_swaps_in_place_and_touches_no_parameter(name: str) -> None:
    model = tiny_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    objects = dict(model.named_parameters())
    # 2 layers x (qkv, out, ffn and two norms)
    assert kernels.use(model, name) == 10
    assert _in_use(model) == {kernels.KERNELS[name]}
    assert list(model.state_dict()) == list(before)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert all(parameter is objects[key] for key, parameter in model.named_parameters())


def test_use_counts_blocks_that_have_visual_weights() -> None:
    model = tiny_model(tiny_config(ExpertsConfig(ffn=(1,), attention=(0,))))
    assert kernels.use(model, "masked_dense") == 3
    assert kernels.use(tiny_model(tiny_config(ExpertsConfig())), "gathered") == 0


def test_active_puts_every_former_kernel_back() -> None:
    model = tiny_model()
    kernels.use(model, "masked_dense")
    model.layers[0].ffn.kernel = kernels.gathered
    with kernels.active(model, "gathered"):
        assert _in_use(model) == {kernels.gathered}
    assert model.layers[0].ffn.kernel is kernels.gathered
    assert model.layers[1].ffn.kernel is kernels.masked_dense
    with pytest.raises(KeyError, match="inside"), kernels.active(model, "gathered"):
        raise KeyError("inside")
    assert model.layers[1].ffn.kernel is kernels.masked_dense


def test_unknown_kernels_are_refused_by_name() -> None:
    model = tiny_model()
    with pytest.raises(RecipeError, match=r"'fast'.*auto, masked_dense, gathered"):
        kernels.use(model, "fast")
    assert kernels.choose("auto") in kernels.KERNELS


@pytest.mark.parametrize("first", kernels.KERNELS)
def test_kernels_agree_on_a_whole_model(first: str) -> None:
    model = tiny_model(dtype=torch.float64)
    ids = torch.tensor([[5, 3, 3, 3, 3, 7, 9], [8, 9, 10, 3, 3, 3, 3]])
    pixels = torch.randn(2, 3, 16, 16)
    logits = []
    for name in (first, "masked_dense"):
        with kernels.active(model, name), torch.no_grad():
            logits.append(model(ids, pixels).logits)
    torch.testing.assert_close(*logits, atol=1e-10, rtol=1e-10)
