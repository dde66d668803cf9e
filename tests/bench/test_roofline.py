"""Operations and bytes, counted by hand and by torch; the floor that they imply."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lightning_mono.bench.cases import Case, Shape
from lightning_mono.bench.contestants import LIMIT, line_up
from lightning_mono.bench.roofline import Gauge, Machine, Work, backward, forward

TINY = Shape("tiny", 2, 3)
CPU = torch.device("cpu")


def test_operations_and_bytes_equal_those_counted_by_hand() -> None:
    """4 tokens, of them 1 visual, of 2 channels; 3 inside. A weight has 6 numbers."""
    case = Case(TINY, 4, 0.25, 1)
    # x 8, weights 2 * 18; gate, up and their product written 36, the last read 12; y 8.
    assert forward(case, 4) == Work(flops=4 * 3 * 2 * 6, bytes=4 * (8 + 36 + 36 + 12 + 8))
    # Inputs: dy 8, weights 36, gate and up 24; their gradients written 24 and read 24; dx 8.
    # Weights: dy 2 and the product 3, x 2 and gradients of gate and up 6; written 18.
    assert backward(case, 4) == Work(flops=(4 + 1) * 3 * 2 * 6, bytes=4 * (124 + 31))


def test_an_absent_modality_costs_nothing() -> None:
    text, visual = Case(TINY, 4, 0.0, 1), Case(TINY, 4, 1.0, 1)
    assert forward(text, 2) == forward(visual, 2) == Work(flops=144, bytes=2 * (100 - 18))
    assert backward(text, 2) == Work(flops=144, bytes=2 * (124 - 18))
    assert backward(visual, 2).flops == 2 * 144


@pytest.mark.parametrize("visual", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("name", [LIMIT, "gathered"])
def test_the_limit_and_the_best_kernel_compute_what_is_counted(name: str, visual: float) -> None:
    case = Case(Shape("", 8, 16), 12, visual, 2)
    contestant = line_up(case, ["gathered"], CPU, torch.float32)[name]
    contestant.reset()
    with FlopCounterMode(display=False) as ahead:
        result = contestant.forward()
    with FlopCounterMode(display=False) as back:
        contestant.backward(result)
    assert ahead.get_total_flops() == forward(case, 4).flops
    assert back.get_total_flops() == backward(case, 4).flops


def test_the_floor_is_set_by_what_takes_longer() -> None:
    machine = Machine(flops=100.0, bytes=10.0, reads=20.0, vector=15.0)
    assert machine.floor(Work(flops=200, bytes=10)) == 2.0
    assert machine.floor(Work(flops=200, bytes=30)) == 3.0


def test_a_gauge_keeps_the_best() -> None:
    gauge = Gauge(CPU, torch.float32)
    bests = []
    for _ in range(2):
        gauge.measure()
        bests.append(gauge.machine)
    for rate in ("flops", "bytes", "reads", "vector"):
        assert getattr(bests[1], rate) >= getattr(bests[0], rate) > 0
