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
        image_targets: those of them that an image token predicts.
        tiles: image tiles in all rows.
        useful: tokens that are not padding, in all rows.
        samples: samples in all rows.
        attended: pairs of tokens that attention multiplies, in all rows.
        masked: whether attention needs a mask over all pairs of a row.
        split: whether it goes document by document instead, as on a CPU.
    """

    rows: int
    length: int
    visual: float
    targets: float
    tiles: float
    useful: float
    samples: float
    attended: float
    masked: bool
    split: bool
    image_targets: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens that are computed; padding is, as text."""
        return self.rows * self.length

    @property
    def text(self) -> float:
        return self.tokens - self.visual

    def of(self, *, visual: bool, end: bool = False) -> float:
        """Tokens of a modality; at the ``end``, in the last layer, those that predict."""
        if end:
            return self.image_targets if visual else self.targets - self.image_targets
        return self.visual if visual else self.text

    def all(self, *, end: bool) -> float:
        """Tokens of both modalities."""
        return self.targets if end else self.tokens
