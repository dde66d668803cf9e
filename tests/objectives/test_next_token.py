"""The loss in chunks is the loss: value, gradients, weights, precisions, heads."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from lightning_mono.model import Batch, MonoModel
from lightning_mono.objectives import next_token, next_token_loss
from lightning_mono.testing import IMAGE, tiny_batch, tiny_config, tiny_model

ROWS = [[[[5, *[IMAGE] * 4, 6, 7], [8, 9], [10]], [[11, 12, 13]]], [[[14, 15, 16]]]]


def _case(tied: bool) -> tuple[MonoModel, Batch]:
    model = tiny_model(tiny_config(tied=tied), dtype=torch.float64)
    batch = tiny_batch(ROWS, model.config)
    batch.weights = torch.rand(len(batch.targets), dtype=torch.float64) + 0.5
    return model, batch


def _plainly(model: MonoModel, batch: Batch) -> torch.Tensor:
    logits = model.logits(model.hidden(batch)).flatten(0, 1)[batch.predict]
    losses = F.cross_entropy(logits.float(), batch.targets, reduction="none")
    return (losses * batch.weights).sum() / batch.weights.sum()


def _chunked(model: MonoModel, batch: Batch) -> torch.Tensor:
    return next_token_loss(model, batch, model.hidden(batch, wanted=batch.wanted))


@pytest.mark.parametrize("trains", ["everything", "head", "all but the head", "nothing"])
@pytest.mark.parametrize("rows", [1, 2, 1000])
@pytest.mark.parametrize("tied", [False, True])
def test_value_and_gradients(
    tied: bool, rows: int, trains: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = _case(tied)
    monkeypatch.setattr(next_token, "CHUNK", rows * model.config.decoder.vocab_size)
    head = {id(p) for p in model.head_parameters()}
    for parameter in model.parameters():
        inside = id(parameter) in head
        learns = {"everything": True, "head": inside, "all but the head": not inside}
        parameter.requires_grad_(learns.get(trains, False))
    other = copy.deepcopy(model)
    plain, ours = _plainly(model, batch), _chunked(other, batch)
    torch.testing.assert_close(ours, plain.to(ours.dtype), atol=1e-6, rtol=0)
    assert ours.requires_grad == (trains != "nothing")
    if trains == "nothing":
        return
    (3 * plain).backward()
    (3 * ours).backward()
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        if one.grad is None or two.grad is None:
            assert one.grad is two.grad, name
        else:
            torch.testing.assert_close(two.grad, one.grad, atol=1e-6, rtol=1e-5, msg=name)


def test_under_autocast_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = _case(tied=False)
    model, other = model.float(), copy.deepcopy(model).float()
    batch.weights = batch.weights.float()
    grads = []
    for one, rows in ((model, 1000), (other, 2)):
        monkeypatch.setattr(next_token, "CHUNK", rows * model.config.decoder.vocab_size)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = _chunked(one, batch)
        loss.backward()
        grads.append([loss.detach(), *(p.grad for p in one.parameters() if p.grad is not None)])
    for whole, parts in zip(*grads, strict=True):
        torch.testing.assert_close(parts, whole, atol=2e-3, rtol=2e-2)


def test_without_gradients_nothing_is_kept() -> None:
    model, batch = _case(tied=False)
    with torch.no_grad():
        loss = _chunked(model, batch)
    torch.testing.assert_close(loss, _plainly(model, batch).to(loss.dtype), atol=1e-6, rtol=0)
    assert not loss.requires_grad


def test_without_targets_the_loss_is_zero_and_every_weight_gets_a_gradient() -> None:
    model = tiny_model()
    batch = tiny_batch([[[[5]]]], model.config)
    loss = _chunked(model, batch)
    loss.backward()
    assert loss.item() == 0.0
    assert model.head is not None
    assert model.head.weight.grad is not None
    assert not model.head.weight.grad.any()


def test_logits_of_a_batch_never_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = _case(tied=False)
    vocabulary = model.config.decoder.vocab_size
    monkeypatch.setattr(next_token, "CHUNK", 2 * vocabulary)
    seen = []
    assert model.head is not None
    model.head.register_forward_hook(lambda _, __, y: seen.append(len(y)))
    _chunked(model, batch).backward()
    assert len(batch.targets) == sum(seen)
    assert max(seen) == 2


def test_the_head_is_multiplied_once_each_way() -> None:
    model, batch = _case(tied=False)
    hidden = model.hidden(batch, wanted=batch.wanted).detach().requires_grad_()
    with FlopCounterMode(display=False) as counter:
        next_token_loss(model, batch, hidden).backward()
    decoder = model.config.decoder
    product = 2 * len(batch.targets) * decoder.hidden_size * decoder.vocab_size
    assert counter.get_total_flops() == 3 * product
