"""The laws of the packing plan: nothing lost, nothing twice, nothing too long, always the same."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mono.data import packing
from lightning_mono.data.mixes import MIXES, Mix
from lightning_mono.data.packing import PackPlan, best_fit, pack
from lightning_mono.errors import DataError

ROOM = 64


@pytest.fixture(autouse=True)
def _small_blocks() -> object:
    """Blocks of a size at which small plans have many."""
    with patch.multiple(packing, BLOCK_ROWS=6, BLOCK_SAMPLES=40, GROUP_BLOCKS=4, OPEN_ROWS=4):
        yield


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


several_lists = st.lists(
    st.lists(st.integers(1, ROOM), min_size=1, max_size=60), min_size=1, max_size=5
)


def side_by_side(lists: list[list[int]]) -> np.ndarray:
    table = np.zeros((len(lists), max(map(len, lists))), int)
    for line, lengths in zip(table, lists, strict=True):
        line[: len(lengths)] = lengths
    return pack(table, ROOM)


@given(several_lists)
def test_packing_keeps_every_sample_and_no_row_is_too_long_or_empty(lists: list[list[int]]) -> None:
    for lengths, rows in zip(lists, side_by_side(lists), strict=True):
        filled = np.bincount(rows[: len(lengths)], lengths)
        assert 0 < filled.min() <= filled.max() <= ROOM


@given(several_lists)
def test_lists_that_are_packed_side_by_side_do_not_see_each_other(lists: list[list[int]]) -> None:
    for lengths, rows in zip(lists, side_by_side(lists), strict=True):
        assert rows[: len(lengths)].tolist() == side_by_side([lengths])[0].tolist()


@given(several_lists)
def test_rows_are_counted_in_the_order_of_their_first_samples(lists: list[list[int]]) -> None:
    for lengths, rows in zip(lists, side_by_side(lists), strict=True):
        first = [rows.tolist().index(row) for row in range(rows[: len(lengths)].max() + 1)]
        assert first == sorted(first)


def test_rows_that_are_not_full_are_packed_again() -> None:
    lengths = np.array([[40, 20, 30, 34, 24, 44]])  # As they come, 40 + 20 and 30 + 34 share rows.
    assert best_fit(lengths, ROOM).max() + 1 == 4
    assert pack(lengths, ROOM).max() + 1 == 3


@given(st.lists(st.integers(1, ROOM), min_size=1, max_size=60))
def test_a_row_is_opened_only_for_what_fits_into_no_open_row(lengths: list[int]) -> None:
    rows = best_fit(np.array([lengths]), ROOM)[0].tolist()
    open_rows = [(-1, 0)] * packing.OPEN_ROWS  # numbers and the room left
    for length, row in zip(lengths, rows, strict=True):
        rooms = [room for _, room in open_rows]
        fitting = [room for room in rooms if room >= length]
        numbers = [number for number, _ in open_rows]
        if row in numbers:
            place = numbers.index(row)
            assert rooms[place] == min(fitting), "not the row in which it leaves the least room"
            open_rows[place] = row, rooms[place] - length
        else:
            assert not fitting
            open_rows[rooms.index(min(rooms))] = row, ROOM - length


@given(plans())
def test_every_sample_that_fits_comes_once_an_epoch(plan: PackPlan) -> None:
    usable = [set(np.flatnonzero(lengths).tolist()) for lengths in plan.lengths]
    drawn: list[list[int]] = [[] for _ in usable]
    for item in islice(plan.samples(), 400):
        assert item.epoch == len(drawn[item.source]) // len(usable[item.source])
        drawn[item.source].append(item.sample)
    for indices, expected in zip(drawn, usable, strict=True):
        for start in range(0, len(indices) - len(expected) + 1, len(expected)):
            assert set(indices[start : start + len(expected)]) == expected


@given(plans(), st.integers(1, 300))
def test_the_mixture_holds_its_weights_at_every_point(plan: PackPlan, count: int) -> None:
    seen = Counter(item.source for item in islice(plan.samples(), count))
    total = sum(plan.weights)
    for source, weight in enumerate(plan.weights):
        assert abs(seen[source] - count * weight / total) <= len(plan.weights)


@given(plans(), st.integers(1, 200))
def test_rows_hold_the_samples_of_the_order_each_once(plan: PackPlan, count: int) -> None:
    rows = list(islice(plan.packs(), count))
    packed = Counter(item for row in rows for item in row)
    assert set(packed.values()) == {1}
    ahead = 2 * packing.BLOCK_SAMPLES  # no sample is packed earlier than a block allows
    order = list(islice(plan.samples(), len(packed) + ahead))
    assert packed.keys() <= set(order)
    assert set(order[: max(0, len(packed) - ahead)]) <= packed.keys()
    for row in rows:
        assert sum(plan.lengths[item.source][item.sample] for item in row) <= ROOM


@given(plans(), st.integers(0, 40))
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
def test_how_many_blocks_are_packed_at_a_time_changes_nothing(plan: PackPlan) -> None:
    rows = list(islice(plan.packs(), 100))
    with patch.object(packing, "GROUP_BLOCKS", 1):
        assert list(islice(plan.packs(), 100)) == rows


@given(plans())
def test_shuffled_epochs_differ_and_unshuffled_ones_do_not(plan: PackPlan) -> None:
    usable = np.flatnonzero(plan.lengths[0]).tolist()
    samples = (item.sample for item in plan.samples() if item.source == 0)
    orders = [list(islice(samples, len(usable))) for _ in range(6)]
    if not plan.shuffle:
        assert all(order == usable for order in orders)
    elif len(usable) >= 8:
        assert len(set(map(tuple, orders))) > 1


def test_an_epoch_reads_few_chunks_at_a_time() -> None:
    plan = PackPlan([np.full(5000, 5)], [[50] * 100], [1.0], ROOM, 2, 0)
    order = [item.sample // 50 for item in islice(plan.samples(), 5000)]
    for start in range(0, 4800, 800):  # 16 chunks of 50 samples
        assert len(set(order[start : start + 800])) == 16


def test_the_seed_decides_the_order() -> None:
    def order(seed: int) -> list[object]:
        plan = PackPlan([np.full(500, 5)], [[100] * 5], [1.0], ROOM, 2, seed)
        return list(islice(plan.samples(), 500))

    assert order(1) == order(1)
    assert order(1) != order(2)


@given(plans(), st.integers(1, 300), st.sampled_from([1, 2]))
@settings(max_examples=50)
def test_batches_for_is_the_least_number_that_is_enough(
    plan: PackPlan, goal: int, world: int
) -> None:
    def seen(batches: int, *, tokens: bool) -> int:
        rows = islice(plan.packs(), batches * plan.batch_size * world)
        worth = [plan.lengths[i.source][i.sample] if tokens else 1 for row in rows for i in row]
        return int(sum(worth))

    count = plan.batches_for(goal, world)
    assert seen(count, tokens=False) >= goal > seen(count - 1, tokens=False)
    count = plan.batches_for_tokens(40 * goal, world)
    assert seen(count, tokens=True) >= 40 * goal > seen(count - 1, tokens=True)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("mix", MIXES.values(), ids=list(MIXES))
def test_97_percent_of_the_tokens_are_useful_in_realistic_mixes(mix: Mix, seed: int) -> None:
    with patch.multiple(
        packing, BLOCK_ROWS=1024, BLOCK_SAMPLES=16_384, GROUP_BLOCKS=4, OPEN_ROWS=64
    ):
        packed, padded = mix.useful(seed)
    assert packed >= 0.97
    assert padded < packed


def test_impossible_plans_are_refused() -> None:
    fits = np.array([4, 5])
    with pytest.raises(DataError, match="no sample of source 1 fits in 64 tokens"):
        PackPlan([fits, np.zeros(2, int)], [[2], [2]], [1, 1], ROOM, 1, 0)
    with pytest.raises(DataError, match="weight of source 0 must be positive"):
        PackPlan([fits], [[2]], [0.0], ROOM, 1, 0)
    with pytest.raises(ValueError, match="longer than a row"):
        PackPlan([np.array([65])], [[1]], [1.0], ROOM, 1, 0)
