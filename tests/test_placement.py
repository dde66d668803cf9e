"""The words that place experts, against the layers they stand for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_mono.placement import layers_of

depths = st.integers(1, 40)


@pytest.mark.parametrize(
    ("placement", "layers"),
    [
        ("all", [0, 1, 2, 3, 4, 5]),
        ("none", []),
        ("first:2", [0, 1]),
        ("last:2", [4, 5]),
        ("every:1", [0, 1, 2, 3, 4, 5]),
        ("every:4", [0, 4]),
        ("2-4", [2, 3, 4]),
        ("3-3", [3]),
        (" all ", [0, 1, 2, 3, 4, 5]),
        ("5", [5]),
        (0, [0]),
        ([], []),
        ([3, 0, 3], [0, 3]),
    ],
)
def test_words_by_hand(placement: Any, layers: list[int]) -> None:
    assert layers_of(placement, 6) == tuple(layers)


@given(layers=depths, data=st.data())
def test_halves_make_the_whole(layers: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, layers))
    first = layers_of(f"first:{cut}", layers)
    assert len(first) == len(layers_of(f"last:{cut}", layers)) == cut
    rest = layers_of(f"last:{layers - cut}", layers) if cut < layers else ()
    assert first + rest == layers_of("all", layers) == layers_of(f"0-{layers - 1}", layers)
    assert layers_of(list(first), layers) == first


@pytest.mark.parametrize(
    ("placement", "says"),
    [
        ("first:7", "6 layers"),
        ("last:0", "6 layers"),
        ("every:0", "6 layers"),
        ("4-2", "0 to 5"),
        ("4-6", "0 to 5"),
        ("6", "layer 6 does not exist"),
        (-1, "layer -1 does not exist"),
        ([0, 9], "layer 9 does not exist"),
        ("some", "first:N"),
        ("", "first:N"),
        ("first:-1", "first:N"),
        ("every", "first:N"),
        (True, "placement"),
        (None, "placement"),
        (1.5, "placement"),
        (["all"], "placement"),
        ([True], "placement"),
        ({"a": 1}, "placement"),
    ],
)
def test_impossible_placements_say_why_in_one_line(placement: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        layers_of(placement, 6)
    assert "\n" not in str(caught.value)
