"""Both experts on every token, blended by the mask: the official semantics, and the oracle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from lightning_mono.model.layout import ModalityLayout


def masked_dense(x: Tensor, layout: ModalityLayout, text: nn.Module, visual: nn.Module) -> Tensor:
    """text(x) (1 - m) + visual(x) m, as the official implementation computes it."""
    dense = text(x)
    m = layout.mask.reshape(-1, 1).to(dense.dtype)
    return dense * (1 - m) + visual(x) * m
