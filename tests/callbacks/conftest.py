"""Whole runs of the tiny recipe, with a look inside at each step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest

from lightning_mono import training
from lightning_mono.recipe import load_recipe
from lightning_mono.training import FitResult, fit

Look = Callable[[pl.Trainer, Any], None]


@pytest.fixture
def watched(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FitResult]:
    """``watched(look, *overrides)`` runs the recipe; ``look`` is called as each step ends."""

    def run(look: Look, *overrides: str, resume: bool = False) -> FitResult:
        class Watch(pl.Callback):
            def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
                look(trainer, module)

        build = training.build_callbacks

        def with_watch(*args: Any, **kwargs: Any) -> list[pl.Callback]:
            return [Watch(), *build(*args, **kwargs)]

        with monkeypatch.context() as patch:
            patch.setattr(training, "build_callbacks", with_watch)
            return fit(load_recipe(recipe_file, overrides), resume=resume)

    return run
