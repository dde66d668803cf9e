"""The memory that a plan says is the memory that its run takes, on this CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_mono.errors import UserError
from lightning_mono.plan import plan
from lightning_mono.plan.measure import measured
from lightning_mono.recipe import load_recipe

SMALL, DEEP = (Path(__file__).with_name(name) for name in ("small.yaml", "deep.yaml"))

CASES = {
    "eight-layers-frozen": (SMALL, "visual", []),
    "eight-layers-top": (SMALL, "top", []),
    "eight-layers-trained": (SMALL, "language", []),
    "eight-layers-in-parts": (SMALL, "parts", []),
    "eight-layers-recomputed": (SMALL, "language", ["trainer.activation_checkpointing=true"]),
    "averaged": (SMALL, "visual", ["trainer.ema=0.99"]),
    "real-llm-frozen": (DEEP, "visual", []),
    "real-llm-trained": (DEEP, "all", []),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_peak_memory_is_the_planned(case: str) -> None:
    path, stage, overrides = CASES[case]
    planned = next(s for s in plan(load_recipe(path, overrides), [], 1.0).stages if s.name == stage)
    taken = measured(path, overrides, stage)
    assert planned.memory.total == pytest.approx(taken.training, rel=0.08)


@pytest.mark.slow
def test_what_cannot_be_measured_says_so_in_a_line() -> None:
    with pytest.raises(UserError, match=r"^stages\.sight .*has no stage sight \(there: visual,"):
        measured(SMALL, [], "sight")
