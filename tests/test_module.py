"""One optimizer step: its groups, its clipping, and that parts change nothing in it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import lightning.pytorch as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_mono.gradients import clip, norms_by_group
from lightning_mono.model import Batch
from lightning_mono.module import MonoModule
from lightning_mono.params import canonical, layers_below
from lightning_mono.stages import Optim
from lightning_mono.testing import IMAGE, tiny_batch, tiny_config, tiny_model

CONFIG = tiny_config(layers=3)
TILE = [IMAGE] * 4
ROWS = [
    [[[5, *TILE, 7, 9, 11]]],
    [[[8, 9, 10, 12, 13]], [[7, 6, 5]]],
    [[[*TILE, 30, 31, 32], [4, 5]]],
    [[[20, 21, 22]]],
]


def module(by_layer: bool = False, **optim: float) -> MonoModule:
    return MonoModule(tiny_model(CONFIG, dtype=torch.float64), Optim(**optim), by_layer=by_layer)


def trained(one: MonoModule, accumulate: int = 1, steps: int = 1) -> MonoModule:
    """The module after some steps on the same four rows."""
    one.accumulate = accumulate

    class Rows(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator[Batch]:
            for step in range(steps):
                yield tiny_batch(ROWS, CONFIG, seed=step)

    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(one, torch.utils.data.DataLoader(Rows(), batch_size=None))
    return one


@pytest.mark.parametrize("accumulate", [2, 4])
def test_a_step_in_parts_is_the_step(accumulate: int) -> None:
    """Gradients to 1e-6 (in fact to the last bits of the fp32 cross entropy), and so the step."""
    whole, parts = trained(module()), trained(module(), accumulate)
    for (name, expected), got in zip(whole.named_parameters(), parts.parameters(), strict=True):
        assert expected.grad is not None
        torch.testing.assert_close(got.grad, expected.grad, atol=1e-6, rtol=0, msg=name)
    assert parts.loss == pytest.approx(whole.loss, abs=1e-6)
    three, again = trained(module(eps=1e-4), steps=3), trained(module(eps=1e-4), accumulate, 3)
    for expected, got in zip(three.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def test_gradients_are_clipped_by_their_norm_together() -> None:
    free, bound = trained(module(grad_clip=0.0)), trained(module(grad_clip=0.01))
    squares = [p.grad.square().sum() for p in free.parameters() if p.grad is not None]
    norm = torch.stack(squares).sum().sqrt()
    assert norm > 0.01, "nothing to clip"
    for expected, got in zip(free.parameters(), bound.parameters(), strict=True):
        torch.testing.assert_close(got.grad, expected.grad * (0.01 / norm), atol=1e-6, rtol=0)
    # What is told of a step is what it was before it was clipped.
    assert bound.grad_norms == free.grad_norms
    assert math.hypot(*free.grad_norms.values()) == pytest.approx(float(norm))


@given(limit=st.floats(0.01, 100), values=st.lists(st.floats(-10, 10), min_size=1, max_size=6))
def test_clipping_keeps_the_direction_and_bounds_the_norm(
    limit: float, values: list[float]
) -> None:
    gradient = torch.tensor(values, dtype=torch.float64)
    parameter = torch.nn.Parameter(torch.zeros_like(gradient))
    parameter.grad = gradient.clone()
    groups = [{"name": "one", "params": [parameter]}]
    norms = norms_by_group(groups)
    clip(groups, norms, limit)
    after = float(parameter.grad.norm())
    assert after <= limit * (1 + 1e-6)
    scale = min(1.0, limit / max(1e-6, float(gradient.norm())))
    torch.testing.assert_close(parameter.grad, gradient * scale, atol=1e-5, rtol=1e-5)


def test_groups_by_layer_hold_what_groups_hold_in_the_same_order() -> None:
    plain, layered = module(), module(by_layer=True)
    coarse, fine = (m.configure_optimizers().param_groups for m in (plain, layered))
    assert len({group["name"] for group in coarse}) * 2 >= len(coarse)
    assert len(fine) > len(coarse)

    def order(groups: list, one: MonoModule) -> list[str]:
        names = {id(p): canonical(n) for n, p in one.model.named_parameters()}
        return [names[id(p)] for group in groups for p in group["params"]]

    assert order(fine, layered) == order(coarse, plain)
    names = {id(p): canonical(n) for n, p in layered.model.named_parameters()}
    for group in fine:
        assert {layers_below(names[id(p)], 3) for p in group["params"]} == {group["below"]}
    assert {group["below"] for group in coarse} == {0}


@pytest.mark.parametrize(("before", "after"), [(False, True), (True, False), (True, True)])
def test_moments_fit_groups_that_were_cut_otherwise(before: bool, after: bool) -> None:
    saver = trained(module(by_layer=before))
    state = saver.trainer.optimizers[0].state_dict()
    loader = module(by_layer=after)
    checkpoint = {"optimizer_states": [state]}
    loader.on_load_checkpoint(checkpoint)
    optimizer = loader.configure_optimizers()
    optimizer.load_state_dict(checkpoint["optimizer_states"][0])
    own = dict(loader.model.named_parameters())
    for name, parameter in saver.model.named_parameters():
        expected = saver.trainer.optimizers[0].state[parameter]["exp_avg"]
        assert torch.equal(optimizer.state[own[name]]["exp_avg"], expected), name
    assert all(
        g["below"] == f["below"]
        for g, f in zip(
            optimizer.param_groups, loader.configure_optimizers().param_groups, strict=True
        )
    )
