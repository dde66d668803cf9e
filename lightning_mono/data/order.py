"""In which order samples come: sources mixed by weight, each shuffled epoch by epoch.

The order is a pure function of (usable samples, chunks, weights, seed), and its t-th sample is
found without the ones before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WINDOW_CHUNKS = 16  # chunks that are shuffled together, and so are read at a time
_UNIT = 2**32  # weights are counted in whole numbers of 1 / _UNIT


class Item(NamedTuple):
    """A sample: the number of its source, its own number in it, and how often it came before."""

    source: int
    sample: int
    epoch: int


class Stretch(NamedTuple):
    """Consecutive samples of the order, (samples,) int64 each: the columns of their items."""

    source: np.ndarray
    sample: np.ndarray
    epoch: np.ndarray


class Mixture:
    """The order of the samples of several sources, without end.

    Sample k of a source of share p stands at the time (k + 1/2) / p, and all stand in the order of
    their times, so that any stretch of the order holds the sources in the ratio of their weights,
    to within a sample of each.
    """

    def __init__(self, sources: Sequence[Epochs], weights: Sequence[float]) -> None:
        """Takes the sources with their weights, to any scale."""
        self._sources = sources
        total = sum(weights)
        self._shares = [max(1, round(weight / total * _UNIT)) for weight in weights]

    def between(self, start: int, stop: int) -> Stretch:
        """The samples whose time is from ``start`` to ``stop``; about ``stop - start`` of them."""
        stretches, times = [], []
        for number, (source, share) in enumerate(zip(self._sources, self._shares, strict=True)):
            first, last = ((2 * t * share + _UNIT) // (2 * _UNIT) for t in (start, stop))
            indices, epochs = source.take(first, last)
            stretches.append(Stretch(np.full(last - first, number), indices, epochs))
            times.append((np.arange(first, last) + 0.5) / share)
        if len(stretches) == 1:
            return stretches[0]
        order = np.argsort(np.concatenate(times), kind="stable")
        return Stretch(*(np.concatenate(column)[order] for column in zip(*stretches, strict=True)))


class Epochs:
    """The samples of one source, epoch after epoch, each time in a new order.

    An epoch shuffles the chunks, and then the samples in windows of ``WINDOW_CHUNKS`` chunks: few
    chunks are open at a time.
    """

    def __init__(
        self, usable: np.ndarray, chunk_sizes: Sequence[int], key: Sequence[int], shuffle: bool
    ) -> None:
        """Takes what there is.

        Args:
            usable: (samples,) bool; the others are left out.
            chunk_sizes: samples of each chunk.
            key: what the order depends on, such as the seed and the number of the source.
            shuffle: otherwise every epoch is in the order of the store.
        """
        self._usable = usable
        self._ends = np.cumsum(chunk_sizes, dtype=np.int64)
        self._starts = self._ends - chunk_sizes
        self._counts = np.add.reduceat(usable.astype(np.int64), self._starts)  # of each chunk
        self._key = tuple(key)
        self._shuffle = shuffle
        self._samples = int(self._counts.sum())
        self._epoch = self._window = -1

    def take(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and epochs of the draws from ``start`` to ``stop``, (stop - start,) each."""
        numbers = [np.zeros(0, np.int64)]
        at = start
        while at < stop:
            epoch, place = divmod(at, self._samples)
            first, window = self._window_at(epoch, place)
            numbers.append(window[place - first : place - first + stop - at])
            at += len(numbers[-1])
        return np.concatenate(numbers), np.arange(start, stop) // self._samples

    def _window_at(self, epoch: int, place: int) -> tuple[int, np.ndarray]:
        """Where the window around the ``place``-th sample of an epoch begins, and its samples."""
        if epoch != self._epoch:
            self._epoch, self._window = epoch, -1
            chunks = np.arange(len(self._ends))
            if self._shuffle:
                chunks = np.random.default_rng((*self._key, epoch)).permutation(chunks)
            self._windows = np.split(chunks, range(WINDOW_CHUNKS, len(chunks), WINDOW_CHUNKS))
            sizes = [int(self._counts[window].sum()) for window in self._windows]
            self._bounds = np.concatenate([[0], np.cumsum(sizes)])
        number = int(np.searchsorted(self._bounds, place, side="right")) - 1
        if number != self._window:
            self._window = number
            chunks = self._windows[number]
            samples = np.concatenate([np.arange(self._starts[c], self._ends[c]) for c in chunks])
            samples = samples[self._usable[samples]]
            if self._shuffle:
                random = np.random.default_rng((*self._key, epoch, number))
                samples = random.permutation(samples)
            self._shown = samples
        return int(self._bounds[number]), self._shown
