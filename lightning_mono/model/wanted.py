"""Which outputs are asked for: the last layer computes no others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mono.model.layout import ModalityLayout


@dataclass(frozen=True)
class Wanted:
    """Positions whose hidden states are read.

    All layers but the last need every token, for keys and values. In the last one the output
    projection and the FFN, the dearest part, are owed to these positions alone: to those that
    predict a target in training, to the end of a prompt in generation, to none where a prompt goes
    on in another chunk.

    Attributes:
        rows: flat positions (row * tokens + column), (n,) int64.
        layout: their modalities, (1, n).
        last: no queries but those of the last column are needed: the wanted positions are this
            column, a row each, or there are none.
    """

    rows: Tensor
    layout: ModalityLayout
    last: bool = False

    @classmethod
    def of(cls, rows: Tensor, layout: ModalityLayout) -> Wanted:
        """Some positions of a batch; cheapest on the CPU, as layouts are."""
        return cls(rows, ModalityLayout.from_mask(layout.mask.reshape(1, -1)[:, rows]))

    @classmethod
    def last_column(cls, layout: ModalityLayout) -> Wanted:
        """The end of every row of a batch that is padded in front."""
        batch, tokens = layout.mask.shape
        rows = torch.arange(1, batch + 1, device=layout.mask.device) * tokens - 1
        return cls(rows, ModalityLayout.from_mask(layout.mask[:, -1][None]), last=True)

    @classmethod
    def nothing(cls, layout: ModalityLayout) -> Wanted:
        """No output: what was read is kept as keys and values only."""
        device = layout.mask.device
        return cls(torch.arange(0, device=device), ModalityLayout.all_text(1, 0, device), last=True)

    @property
    def count(self) -> int:
        return len(self.rows)

    def take(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) -> (1, n, width)."""
        return x.reshape(-1, x.shape[-1]).index_select(0, self.rows)[None]

    def to(self, device: torch.device | str) -> Wanted:
        return Wanted(self.rows.to(device, non_blocking=True), self.layout.to(device), self.last)
