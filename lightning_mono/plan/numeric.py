"""How many bytes a number takes, by what it is for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Numeric:
    """Bytes a number under one of the recipe's precisions.

    Attributes:
        weight: of parameters, gradients, moments and the residual stream.
        product: of what linear layers read and write.
        wide: of what norms read: bf16 is widened to fp32 for them.
    """

    weight: int
    product: int
    wide: int

    @property
    def cast(self) -> bool:
        """Whether products are made of copies in fewer bits (autocast)."""
        return self.product < self.weight


NUMERIC = {
    "32-true": Numeric(weight=4, product=4, wide=4),
    "bf16-mixed": Numeric(weight=4, product=2, wide=4),
    "bf16-true": Numeric(weight=2, product=2, wide=4),
    "64-true": Numeric(weight=8, product=8, wide=8),
}
"""By ``trainer.precision``."""
