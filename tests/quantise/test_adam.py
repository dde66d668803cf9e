"""AdamW with moments in 8 bits, beside rounded text."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
import torch

from lightning_mono.model import ExpertsConfig
from lightning_mono.model.quantised import (
    quantise,
)
from lightning_mono.module import MonoModule
from lightning_mono.objectives import next_token_loss
from lightning_mono.stages import Optim
from lightning_mono.testing import (
    tiny_batch,
    tiny_config,
    tiny_model,
)

from .rounding import WIDE, documents


def module(name: str = "adamw8bit") -> MonoModule:
    config = tiny_config(ExpertsConfig(ffn=(0, 1)), **WIDE)
    model = tiny_model(config)
    quantise(model, "nf4")
    return MonoModule(model, Optim(name=name, lr=3e-3, weight_decay=0.0))


def learn(made: MonoModule, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    batch = tiny_batch(documents(), made.model.config)
    losses = []
    for _ in range(steps):
        loss = next_token_loss(
            made.model, batch, made.model.hidden(batch, wanted=batch.wanted), batch.weights.sum()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def freeze_all_but(made: MonoModule, groups: Sequence[str]) -> None:
    names = {name for group in groups for name in made.group_names()[group]}
    for name, parameter in made.model.named_parameters():
        parameter.requires_grad_(name in names)


def test_adamw8bit_learns_as_adamw_does_and_keeps_moments_in_8_bits() -> None:
    losses = {}
    for name in ("adamw", "adamw8bit"):
        made = module(name)
        freeze_all_but(made, ["experts.ffn", "patchifier"])
        optimizer = made.configure_optimizers()
        losses[name] = learn(made, optimizer, 12)
    assert losses["adamw8bit"][-1] < 0.8 * losses["adamw8bit"][0]
    assert losses["adamw8bit"][-1] == pytest.approx(losses["adamw"][-1], rel=0.1)
    state = {
        n: optimizer.state[p] for n, p in made.model.named_parameters() if p in optimizer.state
    }
    assert all(".visual." in name or name.startswith("patchifier") for name in state)
    kinds = {
        (made.model.get_parameter(name).numel() >= 4096, moments["state1"].dtype)
        for name, moments in state.items()
    }
    assert kinds == {(True, torch.uint8), (False, torch.float32)}


def test_adamw8bit_follows_the_rate_of_every_group() -> None:
    made = module()
    freeze_all_but(made, ["experts.ffn", "patchifier"])
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    optimizer = made.configure_optimizers()
    for group in optimizer.param_groups:
        group["lr"] = 1e-2 if group["name"] == "experts.ffn" else 0.0
    learn(made, optimizer, 2)
    after = made.model.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert moved == {name for name in after if ".ffn.visual." in name}


def test_adamw8bit_goes_on_exactly_where_it_was() -> None:
    whole = module()
    freeze_all_but(whole, ["experts.ffn", "patchifier"])
    optimizer = whole.configure_optimizers()
    learn(whole, optimizer, 3)
    file = io.BytesIO()
    torch.save({"model": whole.state_dict(), "optimizer": optimizer.state_dict()}, file)
    learn(whole, optimizer, 3)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = module()
    freeze_all_but(resumed, ["experts.ffn", "patchifier"])
    resumed.load_state_dict(saved["model"])
    optimizer = resumed.configure_optimizers()
    optimizer.load_state_dict(saved["optimizer"])
    learn(resumed, optimizer, 3)
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
