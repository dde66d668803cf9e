"""The cases of a sweep: one thing varied at a time, and visual tokens where they are asked for."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_mono.bench.cases import SHAPES, Case, Shape, shape, share, sweep

TINY = Shape("tiny", 2, 3)


@given(
    tokens=st.integers(1, 60),
    visual=st.floats(0, 1),
    run=st.integers(1, 70),
)
def test_a_mask_has_the_tokens_and_runs_that_the_case_names(
    tokens: int, visual: float, run: int
) -> None:
    case = Case(TINY, tokens, visual, run)
    flags = case.flags()
    assert len(flags) == tokens
    assert sum(flags) == case.visual == round(tokens * visual)
    words = "".join("v" if flag else "t" for flag in flags).split("t")
    runs = [len(word) for word in words if word]
    assert len(runs) == (case.runs if case.visual else 0)
    if runs:
        assert max(runs) - min(runs) <= 1
        assert max(runs) <= run or case.runs == max(case.text, 1)


def test_runs_are_as_long_as_asked_where_text_parts_them() -> None:
    assert Case(TINY, 12, 0.5, 2).flags() == [True, True, False, False] * 3
    assert Case(TINY, 8, 0.75, 1).flags() == ([True] * 3 + [False]) * 2
    assert Case(TINY, 3, 0.0, 2).flags() == [False] * 3
    assert Case(TINY, 3, 1.0, 2).flags() == [True] * 3


def test_a_sweep_varies_one_thing_at_a_time() -> None:
    other = Shape("other", 4, 6)
    base = Case(TINY, 8, 0.5, 2)
    assert sweep([TINY, other], [8, 4], [0.5, 0.25, 0.5], [2, 1]) == [
        base,
        Case(TINY, 4, 0.5, 2),
        Case(TINY, 8, 0.25, 2),
        Case(TINY, 8, 0.5, 1),
        Case(other, 8, 0.5, 2),
    ]


def test_shapes_are_named_or_spelled_out() -> None:
    assert shape("2b") == ("2b", *SHAPES["2b"]) == ("2b", 2048, 8192)
    assert shape("8,16") == ("8,16", 8, 16)
    for wrong in ("3b", "8", "8,0", "8,-1", "8,16,2", "a,b"):
        with pytest.raises(argparse.ArgumentTypeError, match="HIDDEN,FFN"):
            shape(wrong)


def test_shares_are_shares() -> None:
    assert (share("0"), share("0.75"), share("1")) == (0, 0.75, 1)
    for wrong in ("-0.1", "1.5", "nan"):
        with pytest.raises(argparse.ArgumentTypeError, match="from 0 to 1"):
            share(wrong)
