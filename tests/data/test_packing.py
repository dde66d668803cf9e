"""The laws of the packing plan: nothing lost, nothing twice, nothing too long, always the same."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mono.data.packing import OPEN_ROWS, PackPlan, pack
from lightning_mono.errors import DataError

ROOM = 64


@st.composite
def plans(draw: st.DrawFn) -> PackPlan:
    chunks = draw(
        st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=3)
    )
    lengths = []
    for sizes in chunks:
        seed = draw(st.integers(0, 2**32 - 1))
        values = np.random.default_rng(seed).integers(0, ROOM + 1, sum(sizes))
        values[0] = max(values[0], 1)
        lengths.append(values)
    return PackPlan(
        lengths=lengths,
        chunk_sizes=chunks,
        weights=[draw(st.floats(0.05, 1.0)) for _ in chunks],
        sequence_length=ROOM,
        batch_size=draw(st.integers(1, 4)),
        seed=draw(st.integers(0, 1000)),
        shuffle=draw(st.booleans()),
    )


@given(st.lists(st.integers(1, ROOM), max_size=200))
def test_packing_keeps_every_item_once_and_no_row_too_long(lengths: list[int]) -> None:
    items = [((0, number), length) for number, length in enumerate(lengths)]
    rows = list(pack(items, ROOM, min(lengths, default=1)))
    assert Counter(item for row in rows for item in row) == Counter(item for item, _ in items)
    assert all(0 < sum(lengths[index] for _, index in row) <= ROOM for row in rows)


@given(st.integers(ROOM // 2 + 1, ROOM - 1), st.integers(1, ROOM), st.randoms())
def test_no_row_is_overtaken_by_more_than_a_window(first: int, most: int, random: Random) -> None:
    rest = [random.randint(ROOM - first + 1, max(most, ROOM - first + 1)) for _ in range(300)]
    items = [((0, number), length) for number, length in enumerate([first, *rest])]
    opened = [row[0][1] for row in pack(items, ROOM)]
    for at, number in enumerate(opened):
        assert sum(earlier > number for earlier in opened[:at]) <= OPEN_ROWS


@given(plans())
def test_every_sample_that_fits_comes_once_an_epoch(plan: PackPlan) -> None:
    usable = [set(np.flatnonzero(lengths).tolist()) for lengths in plan.lengths]
    drawn: list[list[int]] = [[] for _ in usable]
    for source, index in islice(plan.samples(), 400):
        drawn[source].append(index)
    for indices, expected in zip(drawn, usable, strict=True):
        for start in range(0, len(indices) - len(expected) + 1, len(expected)):
            assert set(indices[start : start + len(expected)]) == expected


@given(plans(), st.integers(1, 300))
def test_the_mixture_holds_its_weights_at_every_point(plan: PackPlan, count: int) -> None:
    seen = Counter(source for source, _ in islice(plan.samples(), count))
    total = sum(plan.weights)
    for source, weight in enumerate(plan.weights):
        assert abs(seen[source] - count * weight / total) <= len(plan.weights)


@given(plans(), st.integers(0, 12))
def test_starting_later_gives_the_same_batches(plan: PackPlan, start: int) -> None:
    whole = list(islice(plan.batches(), start + 4))
    assert list(islice(plan.batches(start), 4)) == whole[start:]


@given(plans(), st.sampled_from([2, 3]), st.integers(0, 5))
def test_ranks_share_each_global_batch(plan: PackPlan, world: int, start: int) -> None:
    ranks = [list(islice(plan.batches(start, rank, world), 3)) for rank in range(world)]
    rows = list(islice(plan.packs(), (start + 3) * world * plan.batch_size))
    size = world * plan.batch_size
    for number in range(3):
        expected = rows[(start + number) * size : (start + number + 1) * size]
        assert all(len(batches[number]) == plan.batch_size for batches in ranks)
        together = [row for batches in ranks for row in batches[number]]
        assert sorted(map(tuple, together)) == sorted(map(tuple, expected))


@given(plans())
def test_shuffled_epochs_differ_and_unshuffled_ones_do_not(plan: PackPlan) -> None:
    orders = [plan._epoch(0, epoch).tolist() for epoch in range(6)]
    if not plan.shuffle:
        assert all(order == list(range(len(order))) for order in orders)
    elif len(orders[0]) >= 8:
        assert len(set(map(tuple, orders))) > 1


def test_the_seed_decides_the_order() -> None:
    def order(seed: int) -> list[tuple[int, int]]:
        plan = PackPlan([np.full(500, 5)], [[100] * 5], [1.0], ROOM, 2, seed)
        return list(islice(plan.samples(), 500))

    assert order(1) == order(1)
    assert order(1) != order(2)


@given(plans(), st.integers(1, 200), st.sampled_from([1, 2]))
@settings(max_examples=50)
def test_batches_for_is_the_least_number_that_is_enough(
    plan: PackPlan, samples: int, world: int
) -> None:
    count = plan.batches_for(samples, world)
    rows = plan.packs()
    sizes = [sum(len(row) for row in islice(rows, plan.batch_size * world)) for _ in range(count)]
    assert sum(sizes) >= samples > sum(sizes[:-1])


def test_rows_of_ordinary_data_are_nearly_full() -> None:
    lengths = np.random.default_rng(0).integers(20, 90, 4000)
    plan = PackPlan([lengths], [[500] * 8], [1.0], 512, 4, seed=0)
    assert plan.utilisation(100) > 0.97


def test_impossible_plans_are_refused() -> None:
    fits = np.array([4, 5])
    with pytest.raises(DataError, match="no sample of source 1 fits in 64 tokens"):
        PackPlan([fits, np.zeros(2, int)], [[2], [2]], [1, 1], ROOM, 1, 0)
    with pytest.raises(DataError, match="weight of source 0 must be positive"):
        PackPlan([fits], [[2]], [0.0], ROOM, 1, 0)
    with pytest.raises(ValueError, match="longer than a row"):
        PackPlan([np.array([65])], [[1]], [1.0], ROOM, 1, 0)
