"""Attention document by document: packed rows without a mask over all pairs of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mono.model.mask import allowed_pairs


@dataclass(frozen=True)
class Span:
    """Neighbouring tokens of one row that see no others.

    Attributes:
        length: in tokens.
        padding: each sees itself alone.
        branched: not every token sees all before it, so the span needs a mask of its own.
    """

    length: int
    padding: bool = False
    branched: bool = False


def find_spans(documents: Tensor, branches: Tensor) -> tuple[Span, ...] | None:
    """The spans of a batch, its rows one behind the other, from (batch, tokens) each.

    Reads the tensors: on an accelerator it would wait for the device, so it belongs where batches
    are made. None where a document lies in several pieces, which only a mask can join.
    """
    found: list[Span] = []
    for ids, kinds in zip(documents, branches, strict=True):
        present, lengths = ids.unique_consecutive(return_counts=True)
        real = present[present != 0]
        if len(real.unique()) != len(real):
            return None
        parts = kinds.split(lengths.tolist())
        for document, part in zip(present.tolist(), parts, strict=True):
            padding = document == 0
            found.append(Span(len(part), padding, not padding and bool(part.any())))
    return tuple(found)


@dataclass(frozen=True)
class Documents:
    """The spans of a batch, ready to be attended to one by one.

    Attributes:
        spans: its rows one behind the other.
        masks: allowed pairs of each branched span, (1, 1, length, length) bool; None for others.
    """

    spans: Sequence[Span]
    masks: Sequence[Tensor | None]

    @classmethod
    def of(cls, spans: Sequence[Span], branches: Tensor) -> Documents:
        """Builds the masks from a batch's branches, (batch, tokens)."""
        parts = branches.reshape(1, -1).split([span.length for span in spans], dim=1)
        return cls(spans, [_mask(*pair) for pair in zip(spans, parts, strict=True)])

    @property
    def lengths(self) -> list[int]:
        return [span.length for span in self.spans]


def _mask(span: Span, branches: Tensor) -> Tensor | None:
    one = torch.ones_like(branches)
    return allowed_pairs(one, branches, one, branches, offset=0) if span.branched else None
