"""Averages are those of all weights from the first step on; training does not see them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lightning_mono.checkpoints.run import latest, read
from lightning_mono.recipe import load_recipe
from lightning_mono.training import FitResult, Session, fit

DECAY = 0.8


def raw(result: FitResult) -> dict[str, torch.Tensor]:
    newest = latest(result.run.checkpoints)
    assert newest is not None
    return {n.removeprefix("model."): v for n, v in read(newest)["state_dict"].items()}


def average(result: FitResult) -> dict[str, torch.Tensor]:
    newest = latest(result.run.checkpoints)
    assert newest is not None
    return read(newest)["average"]


def exported(result: FitResult) -> dict[str, torch.Tensor]:
    return load_file(result.run.model / "model.safetensors")


def test_it_is_the_average_of_every_weight_there_was(
    recipe_file: Path, watched: Callable[..., FitResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups come and go over three stages; the law knows nothing of stages."""
    history: list[dict[str, torch.Tensor]] = []
    start: dict[str, torch.Tensor] = {}
    train = Session._train

    def keep(self: Session, newest: Path | None) -> None:
        start.update({n: p.detach().clone() for n, p in self.mono.model.named_parameters()})
        train(self, newest)

    monkeypatch.setattr(Session, "_train", keep)

    def look(trainer: Any, module: Any) -> None:
        history.append({n: p.detach().clone() for n, p in module.model.named_parameters()})

    out = recipe_file.parent
    plain = watched(look, f"out={out}/plain")
    before = read(out / "plain" / "checkpoints" / "stage=language-step=00000004.ckpt")
    assert "average" not in before
    history.clear()
    result = watched(look, f"trainer.ema={DECAY}", f"out={out}/averaged")
    assert len(history) == 14
    expected = start
    for weights in history:
        expected = {n: DECAY * a + (1 - DECAY) * weights[n] for n, a in expected.items()}
    ours = {**raw(result), **average(result)}
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, atol=1e-6, rtol=0, msg=name)
    trained = {n for n in start if any(not torch.equal(start[n], w[n]) for w in history)}
    assert trained <= average(result).keys() <= start.keys()
    for name, value in raw(plain).items():
        assert torch.equal(value, raw(result)[name]), "averaging changed the training"
    for name, value in result.assistant.model.named_parameters():
        assert torch.equal(value, average(result).get(name, value)), name
    assert any(not torch.equal(v, exported(plain)[n]) for n, v in exported(result).items())


def test_it_survives_resuming_to_the_last_bit(recipe_file: Path) -> None:
    out = recipe_file.parent
    whole = fit(load_recipe(recipe_file, [f"out={out}/whole", f"trainer.ema={DECAY}"]))
    for steps in (3, 4, 6, 11):
        fit(
            load_recipe(recipe_file, [f"trainer.ema={DECAY}", f"trainer.max_steps={steps}"]),
            resume=True,
        )
    parts = fit(load_recipe(recipe_file, [f"trainer.ema={DECAY}"]), resume=True)
    for one, two in ((average, average), (exported, exported)):
        assert one(whole).keys() == two(parts).keys()
        assert all(torch.equal(value, two(parts)[name]) for name, value in one(whole).items())
    again = fit(load_recipe(recipe_file, [f"trainer.ema={DECAY}"]), resume=True)
    assert all(torch.equal(v, exported(again)[n]) for n, v in exported(whole).items())
