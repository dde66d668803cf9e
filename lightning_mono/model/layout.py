"""Which token is served by which weights: computed once a batch, handed to every layer.

The modality of a token follows from its id, so it is known before layer 0 and is the same in all
layers (Mono-InternVL, section 3.1: static routing). A learned router could share none of this.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """The rows of one modality among the flattened tokens.

    Attributes:
        index: ascending flat row numbers, (count,) int64.
        count: how many rows there are; a Python int, so that no kernel asks the device for it.
        start: first row when the rows are one contiguous run, else None.
    """

    index: Tensor
    count: int
    start: int | None

    @classmethod
    def of(cls, index: Tensor) -> Rows:
        """Describes ascending row numbers; reads them once from the device they are on."""
        count = index.numel()
        if count == 0:
            return cls(index, 0, 0)
        first, last = int(index[0]), int(index[-1])
        return cls(index, count, first if last - first + 1 == count else None)

    def to(self, device: torch.device | str) -> Rows:
        return Rows(self.index.to(device, non_blocking=True), self.count, self.start)

    def take(self, x: Tensor) -> Tensor:
        """Rows of ``x`` (tokens, width) -> (count, width); a view where the rows are one run."""
        if self.start is not None:
            return x[self.start : self.start + self.count]
        return x.index_select(0, self.index)

    def put(self, rows: Tensor, out: Tensor) -> None:
        """Writes ``rows`` (count, width) to these rows of ``out`` (tokens, width), in place."""
        if self.start is not None:
            out[self.start : self.start + self.count] = rows
        else:
            out.index_copy_(0, self.index, rows)


@dataclass(frozen=True)
class ModalityLayout:
    """Text and visual rows of a batch of (batch, tokens), flattened row-major.

    Attributes:
        mask: True where the token is visual, (batch, tokens) bool.
        text: rows served by the text weights.
        visual: rows served by the visual weights.
    """

    mask: Tensor
    text: Rows
    visual: Rows

    @classmethod
    def from_mask(cls, mask: Tensor) -> ModalityLayout:
        """Builds the layout of a bool mask (batch, tokens).

        Cheapest on the CPU, before the batch moves to its device: on an accelerator it waits for
        the device once. No layer does so again.
        """
        if mask.dtype != torch.bool or mask.dim() != 2:
            raise ValueError(f"mask must be bool (batch, tokens), got {mask.dtype} {mask.shape}")
        flat = mask.reshape(-1)
        return cls(mask, Rows.of((~flat).nonzero()[:, 0]), Rows.of(flat.nonzero()[:, 0]))

    @cached_property
    def order(self) -> Tensor:
        """Row numbers sorted by modality: text rows, then visual rows, (tokens,) int64."""
        return torch.cat([self.text.index, self.visual.index])

    @cached_property
    def places(self) -> Tensor:
        """Where each token stands in ``order``, its inverse, (tokens,) int64."""
        places = torch.empty_like(self.order)
        places[self.order] = torch.arange(len(self.order), device=places.device)
        return places

    @cached_property
    def ends(self) -> Tensor:
        """One past the last text row and the last visual row in ``order``, (2,) int32."""
        ends = [self.text.count, self.text.count + self.visual.count]
        return torch.tensor(ends, dtype=torch.int32, device=self.order.device)

    @classmethod
    def all_text(cls, batch: int, tokens: int, device: torch.device | str) -> ModalityLayout:
        """The layout of a batch without visual tokens; asks the device for nothing."""
        count = batch * tokens
        every = torch.arange(count, device=device)
        mask = torch.zeros(batch, tokens, dtype=torch.bool, device=device)
        return cls(mask, Rows(every, count, 0), Rows(every[:0], 0, 0))

    def to(self, device: torch.device | str) -> ModalityLayout:
        return ModalityLayout(
            self.mask.to(device, non_blocking=True), self.text.to(device), self.visual.to(device)
        )
