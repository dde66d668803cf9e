"""What one device computes at a time, counted in tokens."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MicroBatch:
    """Rows that go through the model together, on the average of a stage.

    Attributes:
        rows: sequences.
        length: tokens of a row, padding included.
        visual: image tokens in all rows.
        targets: tokens that are predicted, in all rows.
        tiles: image tiles in all rows.
        useful: tokens that are not padding, in all rows.
        samples: samples in all rows.
        masked: whether attention needs a mask: rows hold several documents, branches or padding.
    """

    rows: int
    length: int
    visual: float
    targets: float
    tiles: float
    useful: float
    samples: float
    masked: bool

    @property
    def tokens(self) -> int:
        """Tokens that are computed; padding is, as text."""
        return self.rows * self.length

    @property
    def text(self) -> float:
        return self.tokens - self.visual

    def of(self, *, visual: bool) -> float:
        """Tokens of a modality."""
        return self.visual if visual else self.text
