"""Prompts are cut by their content alone, wherever they go on differently."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_mono.engine.pieces import cut

A_TILE = 4
runs = st.lists(st.one_of(st.integers(1, 40), st.just("tile")), min_size=1, max_size=8)
bounds = st.tuples(st.integers(1, 24), st.integers(1, 24)).map(lambda x: (max(x), min(x)))


def _visual(parts: list[int | str]) -> np.ndarray:
    flags = [[True] * A_TILE if part == "tile" else [False] * int(part) for part in parts]
    return np.concatenate([np.array(x, dtype=bool) for x in flags])


marks = st.lists(st.integers(-1, 150), max_size=4)


@given(parts=runs, bound=bounds, marks=marks)
def test_pieces_are_the_prompt_in_whole_tiles_and_no_longer_than_may_be(
    parts: list[int | str], bound: tuple[int, int], marks: list[int]
) -> None:
    visual = _visual(parts)
    pieces = cut(visual, A_TILE, *bound, marks)
    assert pieces[0].start == pieces[0].first == 0
    assert pieces[-1].end == len(visual)
    assert pieces[-1].last == visual.sum() // A_TILE
    assert all(a.end == b.start and a.last == b.first for a, b in pairwise(pieces))
    for piece in pieces:
        tokens = piece.end - piece.start
        assert visual[piece.start : piece.end].sum() == (piece.last - piece.first) * A_TILE
        assert 0 < tokens <= max(bound[0], A_TILE)
    ends = {piece.end for piece in pieces}
    assert {at for at in marks if 0 < at < len(visual) and not visual[at - 1]} <= ends


@given(parts=runs, others=runs, own=runs, bound=bounds)
def test_prompts_that_begin_alike_are_cut_alike(
    parts: list[int | str], others: list[int | str], own: list[int | str], bound: tuple[int, int]
) -> None:
    """But for the piece that is open where they part; an image goes on into further tiles."""
    shared = len(_visual([*parts, 1]))
    first, second = (
        [p for p in cut(_visual([*parts, 1, *rest]), A_TILE, *bound) if p.end <= shared]
        for rest in (own, others)
    )
    less = min(len(first), len(second))
    assert first[:less] == second[:less]
    assert abs(len(first) - len(second)) <= 1


@given(parts=runs, bound=bounds)
def test_an_image_ends_a_piece(parts: list[int | str], bound: tuple[int, int]) -> None:
    visual = _visual(parts)
    ends = {piece.end for piece in cut(visual, A_TILE, *bound)}
    after = np.flatnonzero(visual[:-1] & ~visual[1:]) + 1
    assert set(after.tolist()) <= ends


@pytest.mark.parametrize(
    ("parts", "marks", "ends"),
    [
        ([100], [], [100]),
        ([700], [30, 300], [30, 158, 286, 300, 428, 556, 700]),
        ([2000], [], [128, 256, 512, 1024, 1536, 2000]),
        ([40, "tile", 20], [], [44, 64]),
        ([300, "tile", 20], [], [128, 256, 304, 324]),
        ([510, "tile", 300], [], [128, 256, 514, 642, 770, 814]),
    ],
)
def test_cuts_as_documented(parts: list[int | str], marks: list[int], ends: list[int]) -> None:
    assert [piece.end for piece in cut(_visual(parts), A_TILE, 512, 128, marks)] == ends
