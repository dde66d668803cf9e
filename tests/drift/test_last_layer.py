"""Of the last layer's visual experts, a loss on text reaches keys and values, and nothing else."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from lightning_mono.params import grouped
from lightning_mono.testing import IMAGE, tiny_config, tiny_model, tiny_tiles


def test_no_gradient_reaches_what_nobody_reads() -> None:
    config = tiny_config()
    model = tiny_model(config)
    ids = torch.tensor([[5, IMAGE, IMAGE, IMAGE, IMAGE, 6, 7, 8]])
    batch = model.batch(ids, tiny_tiles(ids, config))
    hidden = model.hidden(batch)  # of all positions, though two are read
    cross_entropy(model.logits(hidden[0, [5, 6]]), torch.tensor([7, 8])).backward()
    last = f"layers.{config.decoder.layers - 1}."
    weights = dict(model.named_parameters())
    groups = grouped(weights)
    reached = {}
    for name in (n for group in groups if group.startswith("experts") for n in groups[group]):
        gradient = weights[name].grad
        assert gradient is not None
        reached[name] = bool(gradient.any())
    assert all(hit for name, hit in reached.items() if not name.startswith(last))
    in_last = {name.removeprefix(last) for name, hit in reached.items() if hit and last in name}
    assert in_last == {
        "attention_norm.visual.weight",
        "attention.qkv.visual.k.weight",
        "attention.qkv.visual.v.weight",
    }
