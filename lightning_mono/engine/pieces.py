"""Where a prompt is cut into passes: a function of the prompt alone, not of what is kept of it.

Two prompts that begin alike are cut alike as far as they do, so a pass that one of them has made
is the other's too, with the same rows in the same products: the same keys and values to the last
bit, whether they are kept or computed again.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import NamedTuple

import numpy as np


class Piece(NamedTuple):
    """Tokens ``start`` to ``end`` of a prompt, and its tiles ``first`` to ``last``."""

    start: int
    end: int
    first: int
    last: int


def cut(
    visual: np.ndarray, a_tile: int, chunk: int, block: int, marks: Collection[int] = ()
) -> list[Piece]:
    """Cuts a prompt after every image, at every mark, and wherever a piece would get too long.

    A piece has at most ``chunk`` tokens. Text is cut earlier: behind the last image or mark, at
    ``block`` tokens, then at twice as many, and so on up to ``chunk``, so that of whatever two
    prompts have in common about half is in whole pieces. A tile is never cut, even one longer than
    ``chunk``.

    Args:
        visual: which tokens are image placeholders, (tokens,) bool, in whole tiles.
        a_tile: tokens of a tile.
        marks: numbers of tokens before which to cut; those within an image are passed over.
    """
    changes = np.flatnonzero(visual[1:] != visual[:-1]) + 1
    text_marks = {mark for mark in marks if 0 < mark < len(visual) and not visual[mark - 1]}
    bounds = sorted({0, *changes.tolist(), *text_marks, len(visual)})
    cuts, origin = [0], 0
    for at, end in pairwise(bounds):
        image = bool(visual[at])
        unit = a_tile if image else 1
        while at < end:
            limit = chunk if image else min(max(cuts[-1] - origin, block), chunk)
            room = (limit - (at - cuts[-1])) // unit * unit
            if room <= 0 and at > cuts[-1]:
                cuts.append(at)
                continue
            at = min(at + max(room, unit), end)
        if image or at in text_marks:
            cuts.append(at)
            origin = at
    if cuts[-1] < len(visual):
        cuts.append(len(visual))
    tiles = np.concatenate([[0], visual.cumsum()]) // a_tile
    return [Piece(a, b, int(tiles[a]), int(tiles[b])) for a, b in pairwise(cuts)]
