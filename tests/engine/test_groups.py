"""Rows are split where reading less is worth another call."""

from __future__ import annotations

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from lightning_mono.engine.groups import group


def _cost(lengths: list[int], runs: list[tuple[int, int]], a_call: int) -> int:
    return sum((end - start) * max(lengths[start:end]) + a_call for start, end in runs)


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=7),
    a_call=st.integers(0, 60),
    steps=st.integers(0, 100),
)
def test_no_split_is_cheaper_now_or_later(lengths: list[int], a_call: int, steps: int) -> None:
    runs = group(lengths, a_call)
    grown = [length + steps for length in lengths]
    inner = range(1, len(lengths))
    splits = [
        list(pairwise([0, *cuts, len(lengths)]))
        for count in range(len(lengths))
        for cuts in combinations(inner, count)
    ]
    assert runs in splits
    assert _cost(grown, runs, a_call) == min(_cost(grown, split, a_call) for split in splits)


def test_equal_rows_stay_together() -> None:
    assert group([7] * 16, 1) == [(0, 16)]
    assert group([64, 64, 2000, 64], 128) == [(0, 2), (2, 3), (3, 4)]
    assert group([64, 64, 2000, 64], 8192) == [(0, 4)]
