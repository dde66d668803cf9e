"""Which rows of a step attend together: one long row must not have short ones read as far."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

A_CALL = {"cpu": 128}
"""What one more call a layer costs, by device, in columns of a row read in the same time."""

A_CALL_ELSEWHERE = 8192
"""An accelerator reads that many in the 10 us that it takes to begin something."""


def group(lengths: Sequence[int], a_call: int) -> list[tuple[int, int]]:
    """Splits rows into runs of neighbours so that columns read and calls made cost least.

    A run reads as many columns in each of its rows as its longest has. As all rows grow by one a
    step, the same split stays the best until a row joins or leaves.

    Returns:
        (start, end) of each run, in order.
    """
    best: list[tuple[int, int]] = [
        (0, 0)
    ]  # cost of the first n rows, and where their last run starts
    for end in range(1, len(lengths) + 1):
        longest = list(accumulate(reversed(lengths[:end]), max))  # of the last 1, 2, ... rows
        best.append(
            min(
                (best[start][0] + longest[end - start - 1] * (end - start) + a_call, start)
                for start in range(end)
            )
        )
    runs = []
    end = len(lengths)
    while end:
        start = best[end][1]
        runs.append((start, end))
        end = start
    return runs[::-1]
