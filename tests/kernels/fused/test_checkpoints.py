"""What a kernel has trained and saved loads under any other, and computes the same there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_mono import kernels
from lightning_mono.model import MonoModel
from lightning_mono.testing import kernels_here, tiny_config, tiny_model

EVERY = (*kernels_here(), "triton", "triton_recompute")
IDS = torch.tensor([[5, 3, 3, 3, 3, 7, 9], [8, 9, 10, 3, 3, 3, 3]])
PIXELS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def trained(kernel: str) -> MonoModel:
    """Three steps of all parameters under a kernel; the start is the same for all."""
    model = tiny_model(tiny_config(layers=1, hidden_size=32, head_dim=8, ffn_size=32))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    with kernels.active(model, kernel):
        for _ in range(3):
            optimizer.zero_grad()
            model(IDS, PIXELS).logits.square().mean().backward()
            optimizer.step()
    return model


def logits(model: MonoModel, kernel: str) -> Tensor:
    with kernels.active(model, kernel), torch.no_grad():
        return model(IDS, PIXELS).logits


@pytest.mark.parametrize("writer", EVERY)
def test_a_checkpoint_of_each_kernel_loads_under_every_other(writer: str, tmp_path: Path) -> None:
    model, oracle = trained(writer), trained("masked_dense").state_dict()
    saved, torch_file = model.state_dict(), tmp_path / "model.pt"
    model.save_pretrained(tmp_path)
    torch.save(saved, torch_file)
    assert list(saved) == list(oracle)
    for name, value in saved.items():
        torch.testing.assert_close(value, oracle[name], atol=1e-5, rtol=1e-4, msg=name)
    for reader in EVERY:
        again = MonoModel.from_pretrained(tmp_path)
        fresh = tiny_model(model.config, seed=1)
        kernels.use(fresh, reader)
        fresh.load_state_dict(torch.load(torch_file, weights_only=True))
        expected = logits(model, writer)
        for loaded in (again, fresh):
            torch.testing.assert_close(logits(loaded, reader), expected, atol=1e-4, rtol=1e-4)
