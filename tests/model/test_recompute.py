"""Computing layers again on the way back gives the same bits, and keeps less meanwhile."""

from __future__ import annotations

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from lightning_mono import kernels
from lightning_mono.model.decoder import recompute_layers
from lightning_mono.objectives import next_token_loss
from lightning_mono.testing import IMAGE, kernels_here, tiny_batch, tiny_config, tiny_model

# Sizes that every kernel takes: multiples of 16.
CONFIG = tiny_config(tied=True, hidden_size=32, head_dim=8, ffn_size=48, layers=4)
TILE = [IMAGE] * 4
ROWS = [[[[5, *TILE, 7, 9, 11]], [[4, 5, 6]]], [[[*TILE, 30, 31], [8, 9]]], [[[20, 21, 22]]]]


def run(kernel: str, recomputed: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """The loss, the gradients by name, and the bytes that were kept for the way back."""
    model, batch = tiny_model(CONFIG), tiny_batch(ROWS, CONFIG)
    kernels.use(model, kernel)
    recompute_layers(model, recomputed)
    kept: dict[int, int] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    with saved_tensors_hooks(keep, lambda value: value):
        loss = next_token_loss(model, batch, model.hidden(batch, wanted=batch.wanted))
    held = sum(size for at, size in kept.items() if at not in weights)
    loss.backward()
    return loss, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, held


@pytest.mark.parametrize("kernel", kernels_here())
def test_same_bits_and_less_kept(kernel: str) -> None:
    loss, gradients, held = run(kernel, False)
    again, recomputed, less = run(kernel, True)
    assert torch.equal(loss, again)
    assert gradients.keys() == recomputed.keys()
    assert all(torch.equal(gradients[name], recomputed[name]) for name in gradients)
    assert less < held / 2


def test_names_generation_and_attention_do_not_notice() -> None:
    model, plain = tiny_model(CONFIG), tiny_model(CONFIG)
    recompute_layers(model, True)
    assert [name for name, _ in model.named_parameters()] == [
        name for name, _ in plain.named_parameters()
    ]
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(model.generate(ids, max_new_tokens=5), plain.generate(ids, max_new_tokens=5))
    out = model(ids, labels=ids, output_attentions=True)
    out.loss.backward()
    assert len(out.attentions) == CONFIG.decoder.layers
