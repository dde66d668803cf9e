"""The memory that a plan says is the memory that its run takes, on this CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_mono.errors import UserError
from lightning_mono.plan import plan
from lightning_mono.plan.measure import measured
from lightning_mono.recipe import load_recipe

SMALL, DEEP = (Path(__file__).with_name(name) for name in ("small.yaml", "deep.yaml"))

VIT = (
    "model.patchifier={kind: vit, patch_size: 4, width: 128, merge: 4, vit: {layers: 4, heads: 4}}"
)
CASES = {
    "eight-layers-frozen": (SMALL, "visual", []),
    "eight-layers-top": (SMALL, "top", []),
    "eight-layers-trained": (SMALL, "language", []),
    "eight-layers-in-parts": (SMALL, "parts", []),
    "eight-layers-recomputed": (SMALL, "language", ["trainer.activation_checkpointing=true"]),
    "averaged": (SMALL, "visual", ["trainer.ema=0.99"]),
    "twin": (SMALL, "visual", [VIT]),
    "twin-recomputed": (SMALL, "visual", [VIT, "trainer.activation_checkpointing=true"]),
    "real-llm-frozen": (DEEP, "visual", []),
    "real-llm-trained": (DEEP, "all", []),
}


AS_IT_IS: dict[str, str] = {}
"""No word to the allocator, which keeps some of what is freed."""


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_peak_memory_is_the_planned(case: str) -> None:
    path, stage, overrides = CASES[case]
    assert _planned(case) == pytest.approx(measured(path, overrides, stage).training, rel=0.08)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["eight-layers-trained", "eight-layers-top", "real-llm-trained"])
def test_it_is_near_where_the_allocator_keeps_what_it_likes(case: str) -> None:
    path, stage, overrides = CASES[case]
    taken = measured(path, overrides, stage, AS_IT_IS).training
    assert _planned(case) == pytest.approx(taken, rel=0.15)


def _planned(case: str) -> float:
    path, name, overrides = CASES[case]
    stages = plan(load_recipe(path, overrides), [], 1.0).stages
    return next(stage for stage in stages if stage.name == name).memory.total


@pytest.mark.slow
def test_what_cannot_be_measured_says_so_in_a_line() -> None:
    with pytest.raises(UserError, match=r"^stages\.sight .*has no stage sight \(there: visual,"):
        measured(SMALL, [], "sight")
