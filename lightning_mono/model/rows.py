"""Some rows, or some columns, of a batch as a batch of their own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch

from lightning_mono.model.batch import Batch
from lightning_mono.model.layout import ModalityLayout
from lightning_mono.model.spans import find_spans
from lightning_mono.model.wanted import Wanted


def batch_rows(batch: Batch, start: int, stop: int) -> Batch:
    """Rows ``start`` to ``stop`` of a batch, with their tiles, targets and weights.

    The weights stay what they were, so that the parts of a batch have its loss when they are all
    divided by its whole weight. ``samples`` is the whole batch's: it does not say which row a
    sample is in. Cheapest on the CPU: on an accelerator it waits for the device.
    """
    width = batch.input_ids.shape[1]
    rows = slice(start, stop)
    documents, branches = batch.documents[rows], batch.branches[rows]
    inside = (batch.predict >= start * width) & (batch.predict < stop * width)
    layout = ModalityLayout.from_mask(batch.layout.mask[rows])
    plain = bool((documents == 1).all()) and not bool(branches.any())
    return Batch(
        input_ids=batch.input_ids[rows],
        positions=batch.positions[rows],
        documents=documents,
        branches=branches,
        layout=layout,
        pixel_values=batch.pixel_values[_tiles(batch, start) : _tiles(batch, stop)],
        wanted=Wanted.of(batch.predict[inside] - start * width, layout),
        targets=batch.targets[inside],
        weights=batch.weights[inside],
        tokens=int((documents != 0).sum()),
        packed=batch.packed,
        plain=plain,
        even=batch.even,
        spans=None if plain or batch.spans is None else find_spans(documents, branches),
        samples=batch.samples,
    )


def batch_columns(batch: Batch, start: int, stop: int) -> Batch:
    """Columns ``start`` to ``stop`` of a batch that predicts nothing, without its tiles.

    Their visual tokens have to be embedded already.
    """
    columns = slice(start, stop)
    documents = batch.documents[:, columns]
    return Batch.reading(
        batch.input_ids[:, columns],
        batch.positions[:, columns],
        documents,
        ModalityLayout.from_mask(batch.layout.mask[:, columns]),
        batch.pixel_values[:0],
        tokens=int((documents != 0).sum()),
    )


def split(batch: Batch, parts: int) -> Iterator[Batch]:
    """A batch in so many parts, each of the same number of rows or one fewer.

    Raises:
        ValueError: it has fewer rows than that.
    """
    rows = batch.input_ids.shape[0]
    if rows < parts:
        raise ValueError(f"a batch of {rows} rows cannot be computed in {parts} parts")
    if parts == 1:
        yield batch
        return
    ends = [rows * part // parts for part in range(parts + 1)]
    for start, stop in pairwise(ends):
        yield batch_rows(batch, start, stop)


def _tiles(batch: Batch, row: int) -> int:
    """Tiles that stand before a row: each has as many tokens as any other."""
    tiles, visual = batch.pixel_values.shape[0], batch.layout.visual.count
    if not tiles:
        return 0
    before = int(torch.count_nonzero(batch.layout.mask[:row]))
    return before * tiles // visual
