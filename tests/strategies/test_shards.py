"""What FSDP2 does to a module, in one process: names, files and reading are as without it."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from lightning_mono.errors import RecipeError
from lightning_mono.model import Batch
from lightning_mono.module import MonoModule
from lightning_mono.stages import Optim
from lightning_mono.strategies.fsdp2 import (
    refuse_quantised_moments,
    refuse_quantised_weights,
    shard,
)
from lightning_mono.strategies.shards import (
    gathered_state,
    is_sharded,
    sharded_moments,
    sharded_state,
)
from lightning_mono.testing import IMAGE, tiny_batch, tiny_config, tiny_model

CONFIG = tiny_config(tied=True)


@pytest.fixture(scope="module")
def mesh() -> Iterator[DeviceMesh]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def module(mesh: DeviceMesh | None = None) -> MonoModule:
    made = MonoModule(tiny_model(CONFIG, dtype=torch.float64), Optim(lr=1e-2))
    if mesh is not None:
        shard(made, mesh)
    return made


def batch(seed: int) -> Batch:
    return tiny_batch([[[[5, IMAGE, IMAGE, IMAGE, IMAGE, 7, 8 + seed]]]], CONFIG, seed=seed)


def step(one: MonoModule, optimizer: torch.optim.Optimizer, seed: int) -> float:
    optimizer.zero_grad()
    made = batch(seed)
    loss = one.part_loss(made, made.weights.sum())
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def test_each_layer_is_a_unit_and_all_weights_are_sharded(mesh: DeviceMesh) -> None:
    plain, one = module(), module(mesh)
    assert [n for n, _ in one.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert is_sharded(one)
    assert not is_sharded(plain)
    units = {name for name, m in one.named_modules() if isinstance(m, FSDPModule)}
    assert units == {"", "model.layers.0", "model.layers.1"}
    assert all(isinstance(parameter, DTensor) for parameter in one.parameters())


def test_reading_between_steps_changes_nothing(mesh: DeviceMesh) -> None:
    """The first reading comes before the first step, as it does in a run."""
    plain, one = module(), module(mesh)
    ids, pixels = torch.tensor([[5, *[IMAGE] * 4, 9]]), torch.randn(1, 3, 16, 16).double()
    optimizers = [m.configure_optimizers() for m in (plain, one)]
    for seed in range(3):
        with torch.no_grad():
            torch.testing.assert_close(one(ids, pixels).logits, plain(ids, pixels).logits)
        assert all(isinstance(parameter, DTensor) for parameter in one.parameters())
        losses = [step(m, o, seed) for m, o in zip((plain, one), optimizers, strict=True)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert all(isinstance(parameter, DTensor) for parameter in one.parameters())


def test_states_make_the_round_trip(mesh: DeviceMesh) -> None:
    plain, one, other = module(), module(mesh), module(mesh)
    optimizers = [m.configure_optimizers() for m in (plain, one, other)]
    step(plain, optimizers[0], 0)
    step(one, optimizers[1], 0)
    # Copied, as a file would be: states share memory with what they are the state of.
    saved = copy.deepcopy(gathered_state(one.state_dict(), keep=True))
    moments = copy.deepcopy(gathered_state(optimizers[1].state_dict(), keep=True))
    expected = optimizers[0].state_dict()
    assert list(saved) == list(plain.state_dict())
    assert moments["param_groups"] == expected["param_groups"]
    assert list(moments["state"]) == list(expected["state"])
    for number, values in expected["state"].items():
        for key, value in values.items():
            assert not isinstance(moments["state"][number][key], DTensor)
            torch.testing.assert_close(moments["state"][number][key], value)

    other.load_state_dict(sharded_state(saved, other.state_dict()))
    optimizers[2].load_state_dict(sharded_moments(moments, optimizers[2]))
    assert step(other, optimizers[2], 1) == step(one, optimizers[1], 1)
    for mine, its in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine.full_tensor(), its.full_tensor())


def test_moments_belong_to_parameters_by_their_order_in_the_groups(mesh: DeviceMesh) -> None:
    one, plain = module(mesh), module()
    optimizer, source = one.configure_optimizers(), plain.configure_optimizers()
    step(plain, source, 0)
    state = source.state_dict()
    numbers = list(range(100, 100 + len(list(plain.parameters()))))
    random.Random(0).shuffle(numbers)
    renumbered = {
        "state": {numbers[n]: values for n, values in state["state"].items()},
        "param_groups": [
            {**group, "params": [numbers[n] for n in group["params"]]}
            for group in state["param_groups"]
        ],
    }
    optimizer.load_state_dict(sharded_moments(renumbered, optimizer))
    its = dict(plain.named_parameters())
    for name, parameter in one.named_parameters():
        mine = optimizer.state[parameter]["exp_avg"]
        assert isinstance(mine, DTensor)
        assert torch.equal(mine.full_tensor(), source.state[its[name]]["exp_avg"])


def test_processes_that_do_not_save_keep_nothing(mesh: DeviceMesh) -> None:
    one = module(mesh)
    left = gathered_state(one.state_dict(), keep=False)
    assert {name for name, value in left.items() if value is not None} == dict(
        one.named_buffers()
    ).keys()


def test_a_foreign_key_is_left_to_strict_loading(mesh: DeviceMesh) -> None:
    one = module(mesh)
    state = {**gathered_state(one.state_dict(), keep=True), "model.extra": torch.zeros(2)}
    with pytest.raises(RuntimeError, match=r"Unexpected key.*model\.extra"):
        one.load_state_dict(sharded_state(state, one.state_dict()))


def test_quantised_weights_are_refused() -> None:
    one = module()
    packed = torch.nn.Parameter(torch.zeros(4, 1, dtype=torch.uint8), requires_grad=False)
    one.model.layers[0].ffn.text.up.weight = packed
    with pytest.raises(RecipeError, match=r"model\.layers\.0\.ffn\.text\.up\.weight; use [^\n]*$"):
        refuse_quantised_weights(one)


def test_quantised_moments_are_refused() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    parameters = [torch.nn.Parameter(torch.zeros(2))]
    refuse_quantised_moments([torch.optim.AdamW(parameters)])
    with pytest.raises(RecipeError, match=r"^[^\n]*AdamW8bit; use [^\n]*optim.name=adamw$"):
        refuse_quantised_moments([bitsandbytes.optim.AdamW8bit(parameters)])
