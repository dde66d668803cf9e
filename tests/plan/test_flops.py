"""Operations are those that PyTorch counts, forward and backward, whatever trains."""

from __future__ import annotations

import pytest
from shapes import CASES, TOWERS, VITS, config, counted, named, of_kind, packed, twin
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lightning_mono.model import MonoConfig, VitConfig
from lightning_mono.model.config import PatchifierKind
from lightning_mono.objectives import next_token_loss
from lightning_mono.params import GROUPS, expand, grouped
from lightning_mono.plan.flops import count
from lightning_mono.plan.flow import flow_of
from lightning_mono.testing import tiny_model


@pytest.mark.parametrize(
    ("words", "placement", "tied"),
    # A tied head is the embeddings, and no group of its own.
    [(*case, tied) for case in CASES for tied in (False, True) if not (tied and "head" in case[0])],
    ids=named,
)
def test_counts_are_exact(words: list[str], placement: str, tied: bool) -> None:
    _check(words, config(placement, tied=tied))


@pytest.mark.parametrize("words", [["patchifier"], ["experts"]], ids=named)
@pytest.mark.parametrize("kind", ["linear", "two_conv"])
def test_counts_of_other_patchifiers_are_exact(kind: PatchifierKind, words: list[str]) -> None:
    _check(words, of_kind(config("ffn"), kind))


@pytest.mark.parametrize("vit", VITS, ids=named)
@pytest.mark.parametrize("words", [*TOWERS, ["attention"]], ids=named)
def test_counts_of_the_modular_twin_are_exact(words: list[str], vit: VitConfig) -> None:
    _check(words, twin(vit))


def test_a_tower_that_learns_is_computed_once_more_with_checkpointing() -> None:
    shape, every = twin(VitConfig(layers=3, heads=2)), tuple(GROUPS)
    batch = counted(packed(shape))
    deep, flat = (
        count(one, flow_of(one, every), batch, checkpointing=True)
        for one in (shape, twin(VitConfig(layers=0, heads=2)))
    )
    assert deep.recompute - flat.recompute == deep.forward - flat.forward
    frozen = count(shape, flow_of(shape, ["attention"]), batch, checkpointing=True)
    same = count(twin(VitConfig(0, 2)), flow_of(shape, ["attention"]), batch, checkpointing=True)
    assert frozen.recompute == same.recompute


def _check(words: list[str], shape: MonoConfig) -> None:
    model, batch = tiny_model(shape).train(), packed(shape)
    groups = grouped(name for name, _ in model.named_parameters())
    train = expand(words, groups)
    learns = {name for group in train for name in groups[group]}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learns)
    with sdpa_kernel(SDPBackend.MATH):  # the one whose products the counter sees on a CPU
        with FlopCounterMode(display=False) as forward:
            hidden = model.hidden(batch, wanted=batch.wanted)
        with FlopCounterMode(display=False) as both:  # the loss has its gradient at once
            loss = next_token_loss(model, batch, hidden)
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    planned = count(shape, flow_of(shape, train), counted(batch), checkpointing=False)
    head = 2 * len(batch.targets) * shape.decoder.hidden_size * shape.decoder.vocab_size
    of_head = both.get_total_flops() - head
    assert planned.forward == forward.get_total_flops() + head
    assert planned.backward == backward.get_total_flops() + of_head
