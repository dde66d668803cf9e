"""Liger-Kernel's loss is ours; Triton's interpreter runs it here."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from lightning_mono.objectives.liger import head_weight, serves
from lightning_mono.testing import tiny_config, tiny_model

BOTH = """
import copy, json, sys, torch
from dataclasses import replace
from lightning_mono.objectives import liger, next_token_loss
from lightning_mono.testing import IMAGE, tiny_batch, tiny_config, tiny_model

calls = []
function = liger._function()
liger._function = lambda: lambda *a, **k: (calls.append(1), function(*a, **k))[1]
model = tiny_model(tiny_config(tied=sys.argv[1] == "tied"))
batch = tiny_batch([[[[5, *[IMAGE] * 4, 6, 7], [8, 9]], [[11, 12, 13]]]], model.config)
said = []
for one in (batch, replace(batch, even=False)):
    mine = copy.deepcopy(model)
    loss = next_token_loss(mine, one, mine.hidden(one, wanted=one.wanted), torch.tensor(5.0))
    loss.backward()
    grads = [p.grad.flatten() for p in mine.parameters() if p.grad is not None]
    said.append(torch.cat([loss.detach()[None], *grads]))
print(json.dumps([len(calls), (said[0] - said[1]).abs().max().item(), len(said[0])]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
@pytest.mark.parametrize("head", ["tied", "untied"])
def test_value_and_gradients_are_ours(head: str) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", BOTH, head], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    calls, apart, numbers = json.loads(done.stdout.splitlines()[-1])
    assert calls == 1, "weights that differ are ours to compute"
    assert apart < 1e-5
    assert numbers > 1000


def test_a_cpu_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not serves(torch.device("cpu"))


def test_a_head_of_several_matrices_is_not_served() -> None:
    model = tiny_model(tiny_config())
    assert head_weight(model) is not None
    model.head = nn.Sequential(model.head)  # type: ignore[assignment]
    assert head_weight(model) is None
