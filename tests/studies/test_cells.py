"""Runs of a study: in which order they come, and which of them are one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lightning_mono.studies.cells import cells_of
from lightning_mono.studies.load import load_study

Write = Callable[..., Path]


def test_seeds_come_one_after_the_other_and_arms_share_what_is_equal(write_study: Write) -> None:
    arms = "rate:\n    a: {optim.lr: 0.01}\n    b: {optim.lr: 0.03}\n    c: {optim.lr: 1.0e-2}"
    study = load_study(write_study(("optim.lr: [0.01, 0.03]", arms), ('"0.01"', "b")))
    cells = cells_of(study, Path("cells"))
    assert [cell.seed for cell in cells] == [0, 0, 0, 1, 1, 1]
    assert len({cell.recipe.out for cell in cells}) == 4
