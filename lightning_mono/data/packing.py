"""Which samples share a row, and which rows a batch: integers only, known before any is read.

The plan is a pure function of its arguments. Batch n is the same batch for every number of
workers, ranks and restarts, so that a position in the data is one number.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from lightning_mono.errors import DataError

Item = tuple[int, int]  # the number of a source, the number of a sample in it
Pack = list[Item]  # samples that share a row

OPEN_ROWS = 64  # rows that wait for samples that fit
WINDOW_CHUNKS = 16  # chunks that are shuffled together, and so are read at a time


@dataclass(frozen=True)
class PackPlan:
    """An endless series of batches of packed samples.

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
        """The order of the samples, without end: mixed by weight, each source epoch by epoch.

        The next sample comes from the source that is furthest behind its share, so any stretch of
        the order holds the sources in the ratio of their weights, to within one sample.
        """
        streams = [self._stream(source) for source in range(len(self.lengths))]
        shares = np.asarray(self.weights, float) / sum(self.weights)
        drawn = np.zeros(len(shares))
        for total in range(1, 2**62):
            source = int(np.argmax(shares * total - drawn)) if len(shares) > 1 else 0
            drawn[source] += 1
            yield source, next(streams[source])

    def packs(self) -> Iterator[Pack]:
        """The rows, without end."""
        shortest = min(int(lengths[lengths > 0].min()) for lengths in self.lengths)
        items = ((item, int(self.lengths[item[0]][item[1]])) for item in self.samples())
        return pack(items, self.sequence_length, shortest)

    def batches(self, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[list[Pack]]:
        """The batches of one rank from number ``start`` on, each of ``batch_size`` rows.

        The ranks of ``world`` share each global batch of ``batch_size * world`` rows; together
        they see every row once.
        """
        packs = self.packs()
        size = self.batch_size * world
        next(islice(packs, start * size, start * size), None)
        while True:
            yield list(islice(packs, size))[rank::world]

    def batches_for(self, samples: int, world: int = 1) -> int:
        """Global batches until at least ``samples`` samples have been seen."""
        packs = self.packs()
        seen = count = 0
        while seen < samples:
            seen += sum(len(row) for row in islice(packs, self.batch_size * world))
            count += 1
        return count

    def utilisation(self, batches: int) -> float:
        """Share of the tokens of the first ``batches`` batches that are not padding, 0 to 1."""
        rows = list(islice(self.packs(), batches * self.batch_size))
        used = sum(int(self.lengths[source][index]) for row in rows for source, index in row)
        return used / (len(rows) * self.sequence_length)

    def _stream(self, source: int) -> Iterator[int]:
        epoch = 0
        while True:
            order = self._epoch(source, epoch)
            yield from order[self.lengths[source][order] > 0].tolist()
            epoch += 1

    def _epoch(self, source: int, epoch: int) -> np.ndarray:
        """A permutation that reads a few chunks at a time: shuffle chunks, then in windows."""
        ends = np.cumsum(self.chunk_sizes[source])
        if not self.shuffle:
            return np.arange(ends[-1])
        random = np.random.default_rng((self.seed, source, epoch))
        chunks = np.split(np.arange(ends[-1]), ends[:-1])
        order = random.permutation(len(chunks))
        windows = [order[i : i + WINDOW_CHUNKS] for i in range(0, len(order), WINDOW_CHUNKS)]
        return np.concatenate(
            [random.permutation(np.concatenate([chunks[i] for i in window])) for window in windows]
        )


def pack(items: Iterable[tuple[Item, int]], room: int, shortest: int = 1) -> Iterator[Pack]:
    """Packs items into rows: best fit among a bounded number of open rows.

    Args:
        items: (item, length) in order; 0 < length <= ``room``.
        room: tokens of a row.
        shortest: the least length that occurs; a row with less room left is full.

    Yields:
        Rows, each as soon as it is full or ``OPEN_ROWS`` rows were opened after it; what is still
        open when the items end comes last, oldest first. Each item is in exactly one row.
    """
    rows: dict[int, Pack] = {}  # open rows by number, oldest first
    left: list[tuple[int, int]] = []  # (room left, number of the row), sorted
    opened = 0
    for item, length in items:
        at = bisect_left(left, (length, -1))
        if at < len(left):
            remaining, row = left.pop(at)
        else:
            remaining, row, opened = room, opened, opened + 1
        rows.setdefault(row, []).append(item)
        if remaining - length < shortest:
            yield rows.pop(row)
        else:
            insort(left, (remaining - length, row))
        oldest = next(iter(rows), opened)
        if oldest < opened - OPEN_ROWS:
            left = [entry for entry in left if entry[1] != oldest]
            yield rows.pop(oldest)
    yield from rows.values()
