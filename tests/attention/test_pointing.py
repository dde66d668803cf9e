"""The pointing game counts where the brightest cell lies, and where an object lies is seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lightning_mono.attention import Look, Mosaic, Seen, look, off_ground, pointing
from lightning_mono.inference import Assistant

from .conftest import QUESTION, noise


@pytest.fixture(scope="module")
def seen(assistant: Assistant) -> Look:
    return look(assistant, QUESTION, [noise(16, 16)], max_new_tokens=2)


def looking_at(seen: Look, cell: int) -> Look:
    """The same look with layer 0 at one cell, and layer 1 at the next."""
    heads = {}
    for layer in seen.layers:
        rows = np.zeros_like(seen.heads[layer])
        rows[:, 0, seen.pictures[0].start + (cell + layer) % 4] = 0.7
        heads[layer] = rows
    return replace(seen, heads=heads)


def test_hits_are_counted_by_layer(seen: Look) -> None:
    looks = [looking_at(seen, cell) for cell in (0, 1, 2, 3)]
    first = np.array([[True, False], [False, False]])
    assert pointing(looks, [first] * 4).tolist() == [0.25, 0.25]
    own = [np.arange(4).reshape(2, 2) == cell for cell in range(4)]
    assert pointing(looks, own).tolist() == [1, 0]
    with pytest.raises(ValueError, match="cells"):
        pointing(looks, [np.ones((3, 3), bool)] * 4)


@given(
    grid=st.integers(1, 4),
    columns=st.integers(1, 3),
    rows=st.integers(1, 3),
    side=st.integers(2, 9),
    data=st.data(),
)
def test_an_object_is_where_it_was_painted(
    grid: int, columns: int, rows: int, side: int, data: st.DataObject
) -> None:
    down, across = grid * rows, grid * columns
    cells = data.draw(st.sets(st.integers(0, down * across - 1), max_size=(down * across - 1) // 2))
    image = Image.new("RGB", (across * side, down * side), (240, 235, 230))
    for cell in cells:
        left, top = cell % across * side, cell // across * side
        image.paste((200, 30, 40), (left, top, left + side, top + side))
    mosaic = Mosaic(*image.size, columns, rows, False, grid)
    found = off_ground(Seen(image, mosaic, 0))
    assert found.shape == (down, across)
    assert set(np.flatnonzero(found)) == cells
