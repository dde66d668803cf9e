"""Which samples share a row, and which rows a batch: integers only, known before any is read.

The plan is a pure function of its arguments. Batch n is the same batch for every number of
workers, ranks and restarts, so that a position in the data is one number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np

from lightning_mono.data.order import Epochs, Item, Mixture, Stretch
from lightning_mono.errors import DataError

Pack = list[Item]  # samples that share a row

OPEN_ROWS = 64  # rows that wait for samples that fit
ENOUGH = 0.97  # share of useful tokens in a block with which packing is content
FULL = 0.98  # and in a row, which then stays as it is
AGAIN = 6  # attempts at most
BLOCK_ROWS = 1024  # rows, roughly, that are filled with samples of one block
BLOCK_SAMPLES = 16_384  # and samples of a block, at most
GROUP_BLOCKS = 256  # blocks that are packed side by side, at most


@dataclass(frozen=True)
class PackPlan:
    """An endless series of batches of packed samples.

    The order of the samples is cut into blocks, and each block is packed by itself. So blocks can
    be packed side by side, and the way to any batch is short.

    Attributes:
        lengths: of each source, the tokens of its samples, (samples,) int; 0 leaves a sample out.
        chunk_sizes: of each source, the samples of its chunks.
        weights: of each source, its share of the samples, to any scale.
        sequence_length: tokens of a row.
        batch_size: rows of a batch on one rank.
        seed: of the order.
        shuffle: a new order every epoch; otherwise the order of the store.

    Raises:
        DataError: a source has no sample that fits, or a weight is not positive.
    """

    lengths: Sequence[np.ndarray]
    chunk_sizes: Sequence[Sequence[int]]
    weights: Sequence[float]
    sequence_length: int
    batch_size: int
    seed: int
    shuffle: bool = True

    def __post_init__(self) -> None:
        for source, (lengths, weight) in enumerate(zip(self.lengths, self.weights, strict=True)):
            if not lengths.any():
                raise DataError(
                    f"no sample of source {source} fits in {self.sequence_length} tokens"
                )
            if lengths.max() > self.sequence_length:
                raise ValueError(f"source {source} has a sample longer than a row")
            if weight <= 0:
                raise DataError(f"the weight of source {source} must be positive, not {weight}")

    def samples(self) -> Iterator[Item]:
        """The order of the samples, without end: mixed by weight, each source epoch by epoch."""
        return chain.from_iterable(block.items() for block in self._blocks())

    def packs(self, start: int = 0) -> Iterator[Pack]:
        """The rows from number ``start`` on, without end."""
        for block in self._blocks():
            if start < block.rows:
                yield from block.packs()[start:]
            start = max(0, start - block.rows)

    def batches(self, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[list[Pack]]:
        """The batches of one rank from number ``start`` on, each of ``batch_size`` rows.

        The ranks of ``world`` share each global batch of ``batch_size * world`` rows; together
        they see every row once.
        """
        size = self.batch_size * world
        packs = self.packs(start * size)
        while True:
            yield list(islice(packs, size))[rank::world]

    def batches_for(self, samples: int, world: int = 1) -> int:
        """Global batches until at least ``samples`` samples have been seen."""
        return self._batches_until(samples, world, lambda block: np.ones_like(block.length))

    def batches_for_tokens(self, tokens: int, world: int = 1) -> int:
        """Global batches until at least ``tokens`` tokens have been seen, padding not counted."""
        return self._batches_until(tokens, world, lambda block: block.length)

    def utilisation(self, batches: int) -> float:
        """Share of the tokens of the first ``batches`` batches that are not padding, 0 to 1."""
        rows = list(islice(self.packs(), batches * self.batch_size))
        used = sum(int(self.lengths[item.source][item.sample]) for row in rows for item in row)
        return used / (len(rows) * self.sequence_length)

    def _batches_until(self, goal: int, world: int, worth: Callable[[Block], np.ndarray]) -> int:
        """Global batches until the worth of all samples seen is at least ``goal``."""
        seen = rows = 0
        for block in self._blocks():
            totals = seen + np.cumsum(np.bincount(block.row, worth(block), block.rows))
            if totals[-1] >= goal:
                rows += int(np.searchsorted(totals, goal)) + 1
                break
            seen, rows = int(totals[-1]), rows + block.rows
        return -(-rows // (self.batch_size * world))

    def _blocks(self) -> Iterator[Block]:
        """The blocks in order; first few are packed at a time, then more and more."""
        epochs = [
            Epochs(lengths > 0, sizes, (self.seed, source), self.shuffle)
            for source, (lengths, sizes) in enumerate(
                zip(self.lengths, self.chunk_sizes, strict=True)
            )
        ]
        mixture, size = Mixture(epochs, self.weights), self._block_samples()
        first, count = 0, 1
        while True:
            stretches = [
                mixture.between(b * size, (b + 1) * size) for b in range(first, first + count)
            ]
            yield from self._packed([stretch for stretch in stretches if len(stretch.sample)])
            first, count = first + count, min(2 * count, GROUP_BLOCKS)

    def _packed(self, stretches: list[Stretch]) -> list[Block]:
        lengths = [self._lengths_of(stretch) for stretch in stretches]
        table = np.zeros((len(lengths), max(map(len, lengths), default=0)), np.int32)
        for line, each in zip(table, lengths, strict=True):
            line[: len(each)] = each
        rows = pack(table, self.sequence_length)
        return [
            Block(stretch, each, row[: len(each)])
            for stretch, each, row in zip(stretches, lengths, rows, strict=True)
        ]

    def _lengths_of(self, stretch: Stretch) -> np.ndarray:
        """(samples,) int64."""
        found = np.zeros(len(stretch.sample), np.int64)
        for source, lengths in enumerate(self.lengths):
            here = stretch.source == source
            found[here] = lengths[stretch.sample[here]]
        return found

    def _block_samples(self) -> int:
        """Samples that fill ``BLOCK_ROWS`` rows, roughly, but not too many."""
        means = [int(lengths.sum()) / int((lengths > 0).sum()) for lengths in self.lengths]
        mean = sum(m * w for m, w in zip(means, self.weights, strict=True)) / sum(self.weights)
        return min(BLOCK_SAMPLES, int(BLOCK_ROWS * self.sequence_length / mean) + 1)


@dataclass(frozen=True)
class Block:
    """A stretch of the order with the row of each sample.

    Attributes:
        stretch: the samples in order.
        length: their tokens, (samples,) int64.
        row: the rows that they are in, (samples,) int32, counted in the order of their opening.
    """

    stretch: Stretch
    length: np.ndarray
    row: np.ndarray

    @property
    def rows(self) -> int:
        return int(self.row.max()) + 1

    def items(self) -> list[Item]:
        """The samples in order."""
        return [Item(*item) for item in zip(*(c.tolist() for c in self.stretch), strict=True)]

    def packs(self) -> list[Pack]:
        """The rows with their samples."""
        packs: list[Pack] = [[] for _ in range(self.rows)]
        for item, row in zip(self.items(), self.row.tolist(), strict=True):
            packs[row].append(item)
        return packs


def pack(lengths: np.ndarray, room: int) -> np.ndarray:
    """Packs several lists of samples into rows, side by side.

    Each list is packed by best fit as its samples come. While too much of its rows is empty, those
    that are not full are taken apart and their samples packed in another random order. (The longest
    first would fill rows better, but with samples of one length and so of one kind.)

    Args:
        lengths: (lists, samples) int; a list ends with zeros where it has fewer samples.
        room: tokens of a row, at least the longest length.

    Returns:
        (lists, samples) int32: the row of each sample, counted in the order of their first samples.
    """
    rows = best_fit(lengths, room)
    for seed in range(AGAIN):
        wasteful = np.flatnonzero(lengths.sum(1) < ENOUGH * room * (rows.max(1) + 1))
        if not len(wasteful):
            break
        rows[wasteful] = _again(rows[wasteful], lengths[wasteful], room, seed)
    return _in_order(rows, lengths > 0)


def _again(rows: np.ndarray, lengths: np.ndarray, room: int, seed: int) -> np.ndarray:
    """Takes apart the rows that are not full, where fewer come of it."""
    full = _sums(rows, lengths) >= FULL * room
    loose = ~np.take_along_axis(full, rows, axis=1) & (lengths > 0)
    # A column's key is the same, however many there are.
    key = np.random.default_rng(seed).random((lengths.shape[1],))
    order = np.argsort(np.where(loose, key, np.inf), axis=1, kind="stable")
    order = order[:, : int(loose.sum(1).max())]
    waiting = np.take_along_axis(np.where(loose, lengths, 0), order, axis=1)
    found = best_fit(waiting, room) + full.sum(1, keepdims=True)
    made = np.take_along_axis(np.cumsum(full, axis=1) - 1, rows, axis=1)
    line, place = np.nonzero(waiting)
    made[line, order[line, place]] = found[line, place]
    made[lengths == 0] = 0
    fewer = made.max(1) < rows.max(1)
    return np.where(fewer[:, None], made, rows)


def best_fit(lengths: np.ndarray, room: int) -> np.ndarray:
    """Packs lists of samples, side by side, in the order in which they come.

    A sample goes into that one of a few open rows in which it leaves the least room. Where it fits
    into none, a row is opened for it in the place of the fullest.

    Args:
        lengths: (lists, samples) int; a list ends with zeros where it has fewer samples.
        room: tokens of a row, at least the longest length.

    Returns:
        (lists, samples) int32: the row of each sample, counted in the order of opening.
    """
    lists = np.arange(len(lengths))
    left = np.zeros((len(lengths), OPEN_ROWS), np.int32)  # room left in the open rows
    open_rows = np.zeros_like(left)  # and their numbers
    opened = np.zeros(len(lengths), np.int32)
    rows = np.zeros(lengths.shape, np.int32)
    for column, length in enumerate(lengths.T.astype(np.int32)):
        after = left - length[:, None]
        place = after.view(np.uint32).argmin(1)  # what is below 0 is above all as unsigned
        none = after[lists, place] < 0
        if none.any():
            place[none] = left[none].argmin(1)
            fresh = lists[none], place[none]
            left[fresh], open_rows[fresh] = room, opened[none]
            opened += none
        left[lists, place] -= length
        rows[:, column] = open_rows[lists, place]
    return rows


def _sums(rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Tokens of each row, (lists, rows) int64."""
    lists, most = len(rows), int(rows.max(initial=0)) + 1
    flat = (rows + most * np.arange(lists)[:, None]).ravel()
    sums = np.bincount(flat, lengths.ravel(), lists * most)
    return sums.astype(np.int64).reshape(lists, most)


def _in_order(rows: np.ndarray, real: np.ndarray) -> np.ndarray:
    """The same rows, counted in the order of their first samples."""
    lists, samples = rows.shape
    line, column = np.nonzero(real)
    first = np.full((lists, int(rows.max(initial=0)) + 1), samples)
    np.minimum.at(first, (line, rows[line, column]), column)
    places = np.argsort(np.argsort(first, axis=1, kind="stable"), axis=1, kind="stable")
    return np.where(real, np.take_along_axis(places, rows, axis=1), 0).astype(np.int32)
