"""Batches of a stage, and one loader for a schedule of stages that goes on where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, Dataset

from lightning_mono.data.augment import Recompression
from lightning_mono.data.collate import collate
from lightning_mono.data.lengths import measure
from lightning_mono.data.order import Item
from lightning_mono.data.packing import Pack, PackPlan
from lightning_mono.data.render import Example, Renderer
from lightning_mono.data.sample import Skipped
from lightning_mono.data.store import Store
from lightning_mono.errors import DataError
from lightning_mono.model.batch import Batch

EXAMPLE_BYTES = 256 * 2**20  # rendered examples kept by each process that renders


class StageData:
    """What one stage trains on: prepared sources, how they become tokens, and in which order.

    Attributes:
        stores: the prepared sources.
        renderer: what turns samples into tokens.
        plan: which samples share a row, and which rows a batch.
        augment: what is done to the tiles of each example.
        skipped: samples in which nothing supervised fits in a row.
        dropped: exchanges, and ends of documents, that did not fit in a row.
        samples: samples of an epoch over all sources.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Store, float]],
        renderer: Renderer,
        *,
        sequence_length: int,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        pad_id: int = 0,
        loss: Literal["token", "sample", "square"] = "token",
        jpeg: tuple[int, int] | None = None,
        workers: int = 0,
    ) -> None:
        """Measures the samples and plans their order.

        Args:
            sources: prepared sources, each with its weight in the mixture.
            renderer: turns samples into tokens.
            sequence_length: tokens of a row.
            batch_size: rows of a batch on one rank.
            seed: of the order of samples.
            shuffle: a new order every epoch; otherwise the order of the sources.
            pad_id: the token that fills rows up.
            loss: how much a sample of many targets weighs.
            jpeg: qualities, lowest and highest, of which one is drawn to compress each tile anew.
            workers: processes that measure samples, where they are many; 0 measures here.

        Raises:
            DataError: a source has nothing that fits, or a weight is not positive.
        """
        self.stores = [store for store, _ in sources]
        self.renderer = renderer
        self.pad_id = pad_id
        self.loss = loss
        self.augment = Recompression(*jpeg, seed) if jpeg else None
        lengths = [measure(store, renderer, sequence_length, workers) for store in self.stores]
        for store, each in zip(self.stores, lengths, strict=True):
            if not each.tokens.any():
                name = f"{store.manifest['source']}/{store.manifest['split']}"
                raise DataError(f"no sample of {name} fits in {sequence_length} tokens")
        self.plan = PackPlan(
            lengths=[each.tokens for each in lengths],
            chunk_sizes=[store.chunk_sizes for store in self.stores],
            weights=[weight for _, weight in sources],
            sequence_length=sequence_length,
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
        )
        self.skipped = [
            Skipped(store[int(index)].id, f"nothing fits in {sequence_length} tokens")
            for store, each in zip(self.stores, lengths, strict=True)
            for index in (each.tokens == 0).nonzero()[0]
        ]
        self.dropped = sum(int(each.dropped.sum()) for each in lengths)
        self.samples = sum(int((each.tokens > 0).sum()) for each in lengths)


def stage_loader(
    data: StageData, *, start: int = 0, rank: int = 0, world: int = 1, workers: int = 0
) -> DataLoader[list[Example]]:
    """The endless batches of a stage from number ``start`` on.

    Batch n is the same for every number of workers. Each process keeps the examples that it
    rendered, up to ``EXAMPLE_BYTES``.

    Args:
        data: the stage's data.
        start: batches to leave out at the start.
        rank: which share of each global batch.
        world: how many shares there are.
        workers: processes that render; 0 renders here.

    Returns:
        A loader of :class:`~lightning_mono.model.batch.Batch`, on the CPU.
    """
    return DataLoader(
        _Rows(data),
        batch_sampler=_Batches(data.plan, start, rank, world),
        collate_fn=partial(
            collate,
            renderer=data.renderer,
            sequence_length=data.plan.sequence_length,
            pad_id=data.pad_id,
            loss=data.loss,
        ),
        num_workers=workers,
        generator=torch.Generator(),  # or each new iterator would draw from the global one
    )


class _Batches:
    """A plan's batches as the batch sampler of a DataLoader."""

    def __init__(self, plan: PackPlan, start: int, rank: int, world: int) -> None:
        self._arguments = (plan, start, rank, world)

    def __iter__(self) -> Iterator[list[Pack]]:
        plan, start, rank, world = self._arguments
        return plan.batches(start, rank, world)


class _Rows(Dataset[list[Example]]):
    """Rows of examples, by the list of their items."""

    def __init__(self, data: StageData) -> None:
        self._stores = data.stores
        self._renderer = data.renderer
        self._max_length = data.plan.sequence_length
        self._augment = data.augment
        self._examples: dict[tuple[int, int], Example] = {}
        self._bytes = 0

    def __getitem__(self, row: Pack) -> list[Example]:
        return [self._example(item) for item in row]

    def _example(self, item: Item) -> Example:
        example = self._rendered(item.source, item.sample)
        return self._augment(example, item) if self._augment else example

    def _rendered(self, source: int, index: int) -> Example:
        if (source, index) in self._examples:
            return self._examples[source, index]
        example = self._renderer.example(self._stores[source][index], self._max_length)
        if example is None:
            raise DataError(f"{self._stores[source].folder} changed; delete its lengths-*.npy")
        if self._bytes + example.nbytes <= EXAMPLE_BYTES:
            self._examples[source, index] = example
            self._bytes += example.nbytes
        return example


class StagedLoader:
    """The batches of a schedule of stages, one after the other: sized, and resumable anywhere.

    Its state is the number of batches that were handed out. Since batch n of a stage is a pure
    function of n, a run that resumes sees what a run that never stopped would have seen.

    Attributes:
        waited: seconds spent so far until batches were there, but for the first of each stage.
        opening: seconds until these were there: processes start and files are opened.
    """

    def __init__(self, stages: Sequence[tuple[Callable[[int], Iterable[Batch]], int]]) -> None:
        """Takes ``(loader, batches)`` of each stage: ``loader(n)`` gives its batches from n on."""
        self._stages = stages
        self._batches = 0
        self.waited = self.opening = 0.0

    def __len__(self) -> int:
        return sum(batches for _, batches in self._stages)

    def __iter__(self) -> Iterator[Batch]:
        if self._batches >= len(self):
            self._batches = 0
        first = 0
        for loader, batches in self._stages:
            start, first = self._batches - first, first + batches
            if start >= batches:
                continue
            asked = time.monotonic()
            stream = iter(loader(start))
            for number in range(start, batches):
                batch = next(stream)
                seconds = time.monotonic() - asked
                if number == start:
                    self.opening += seconds
                else:
                    self.waited += seconds
                self._batches += 1
                yield batch
                asked = time.monotonic()

    def take_back(self) -> None:
        """Counts the last batch as not handed out: nothing was learnt from it."""
        self._batches -= 1

    def state_dict(self) -> dict[str, Any]:
        """The number of batches handed out so far."""
        return {"batches": self._batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on behind the batches that were handed out."""
        self._batches = state["batches"]
