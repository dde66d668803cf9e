"""A model with text of 4 or 8 bits: what is rounded, what is not, what comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning_mono.kernels import use

from lightning_mono.checkpoints.folder import save_model
from lightning_mono.errors import CheckpointError
from lightning_mono.model import ExpertsConfig
from lightning_mono.model.quantised import (
    bytes_by_group,
    parameter_count,
    quantise,
    quantised_linears,
    restore,
)
from lightning_mono.objectives import next_token_loss
from lightning_mono.params import grouped
from lightning_mono.testing import (
    tiny_batch,
    tiny_config,
    tiny_model,
)

from .rounding import SCHEMES, WIDE, documents


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_matrices_are_rounded_and_nothing_else(scheme: str) -> None:
    model = tiny_model(tiny_config(**WIDE))
    model.copy_experts_from_text()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    bytes_before = bytes_by_group(model)
    quantise(model, scheme)
    names = {name for name, _ in quantised_linears(model)}
    parts = ("attention.qkv.text.q", "attention.qkv.text.k", "attention.qkv.text.v")
    parts += ("attention.out.text", "ffn.text.gate", "ffn.text.up", "ffn.text.down")
    assert names == {f"layers.{layer}.{part}" for layer in range(2) for part in parts}
    after = model.state_dict()
    plain = {name: value for name, value in before.items() if name[: -len(".weight")] not in names}
    assert after.keys() - plain.keys() == {
        f"{name}.{leaf}" for name in names for leaf in ("weight", "scales")
    }
    assert all(torch.equal(after[name], value) for name, value in plain.items())
    for name in names:  # an expert begins as the full weight, not as the rounded one
        expert = after.get(f"{name.replace('.text', '.visual')}.weight")
        assert torch.equal(expert, before[f"{name}.weight"])  # type: ignore[arg-type]

    bytes_after = bytes_by_group(model)
    changed = {group for group in bytes_before if bytes_before[group] != bytes_after[group]}
    assert changed == {"ffn", "attention"}
    # 4 bits and a 64th of 32; 8 bits and 32 a row of 64 or 96.
    most = 4.5 / 32 if scheme == "nf4" else 8.5 / 32
    assert all(bytes_after[group] <= most * bytes_before[group] for group in changed)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_gradients_reach_experts_and_patchifier_and_no_text_matrix(scheme: str) -> None:
    config = tiny_config(ExpertsConfig(ffn=(0,)), **WIDE)  # text matrices lie on every path
    model = tiny_model(config)
    quantise(model, scheme)
    batch = tiny_batch(documents(), config)
    next_token_loss(
        model, batch, model.hidden(batch, wanted=batch.wanted), batch.weights.sum()
    ).backward()
    groups = grouped(name for name, _ in model.named_parameters())
    for group in ("experts.ffn", "patchifier"):
        grads = [model.get_parameter(name).grad for name in groups[group]]
        reached = [grad for grad in grads if grad is not None and grad.abs().sum() > 0]
        assert len(reached) >= len(grads) - 2, group  # the class token has no place in the input
    assert all(model.get_parameter(name).grad is None for name in groups["ffn"])
    assert all(model.get_parameter(name).grad is None for name in groups["attention"])


def test_kernels_agree_on_rounded_text() -> None:
    config = tiny_config(**WIDE)
    model = tiny_model(config, dtype=torch.float64)
    quantise(model, "nf4")
    batch = tiny_batch(documents(), config)
    batch.pixel_values = batch.pixel_values.double()
    results = []
    for kernel in ("masked_dense", "gathered"):
        use(model, kernel)
        model.zero_grad()
        hidden = model.hidden(batch)
        hidden.square().sum().backward()
        experts = {n: p.grad for n, p in model.named_parameters() if ".visual." in n}
        results.append((hidden, experts))
    torch.testing.assert_close(results[0], results[1], atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_full_weights_come_back_bit_for_bit(scheme: str) -> None:
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quantise(model, scheme)
    restore(model, before)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not list(quantised_linears(model))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_other_weights_are_refused(scheme: str) -> None:
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quantise(model, scheme)
    name = "layers.1.ffn.text.up.weight"
    others = ({**before, name: before[name] * 1.01}, {k: v for k, v in before.items() if k != name})
    for other in others:
        with pytest.raises(CheckpointError, match=r"layers\.1\.ffn\.text\.up\.weight") as caught:
            restore(model, other)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_training_checkpoint_holds_the_rounded_weights(scheme: str) -> None:
    model, other = tiny_model(), tiny_model(seed=1)
    for each in (model, other):
        quantise(each, scheme)
    other.to(torch.bfloat16)
    other.load_state_dict(model.to(torch.bfloat16).state_dict())
    pairs = zip(quantised_linears(model), quantised_linears(other), strict=True)
    for (_, ours), (_, theirs) in pairs:
        assert torch.equal(ours.expanded(torch.float32), theirs.expanded(torch.float32))


def test_a_model_with_rounded_weights_is_not_exported(tmp_path: Path) -> None:
    model = tiny_model()
    quantise(model, "nf4")
    with pytest.raises(CheckpointError, match="restore the model's rounded weights"):
        save_model(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_rounded_matrix_counts_as_what_it_stands_for() -> None:
    model = tiny_model(tiny_config(tied=True))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert parameter_count(model) == count
    quantise(model, "nf4")
    assert parameter_count(model) == count
