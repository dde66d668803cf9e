"""Rows of examples to the batch that a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from lightning_mono.data.render import Example, Renderer
from lightning_mono.model.batch import Batch


def collate(
    rows: Sequence[Sequence[Example]],
    renderer: Renderer,
    sequence_length: int,
    pad_id: int,
    loss: Literal["token", "sample", "square"] = "token",
) -> Batch:
    """Lays examples end to end in rows of fixed length.

    Args:
        rows: the examples of each row, at most ``sequence_length`` tokens together.
        renderer: that made them; it normalises the pixels.
        sequence_length: tokens of a row, padding included.
        pad_id: the token after the last example.
        loss: how much a sample of many targets weighs; see :meth:`Batch.build`.

    Returns:
        A batch of (rows, sequence_length) tokens on the CPU; documents count from 1 in each row.

    Raises:
        ValueError: a row is too long.
    """
    shape = (len(rows), sequence_length)
    input_ids = np.full(shape, pad_id, np.int64)
    positions = np.zeros(shape, np.int64)
    documents = np.zeros(shape, np.int32)
    branches = np.zeros(shape, np.int32)
    supervised = np.zeros(shape, bool)
    for row, examples in enumerate(rows):
        start = 0
        for document, example in enumerate(examples, 1):
            end = start + len(example.input_ids)
            if end > sequence_length:
                raise ValueError(f"row {row} holds more than {sequence_length} tokens")
            here = (row, slice(start, end))
            input_ids[here] = example.input_ids
            positions[here] = example.positions
            documents[here] = document
            branches[here] = example.branches
            supervised[here] = example.supervised
            start = end
    every = [example for examples in rows for example in examples]
    return Batch.build(
        input_ids=torch.from_numpy(input_ids),
        positions=torch.from_numpy(positions),
        documents=torch.from_numpy(documents),
        branches=torch.from_numpy(branches),
        supervised=torch.from_numpy(supervised),
        pixel_values=torch.from_numpy(renderer.pixels([example.tiles for example in every])),
        loss=loss,
        image_context_id=renderer.image_tokens.context if renderer.image_tokens else None,
        samples=[example.id for example in every],
    )
