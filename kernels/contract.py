"""What a kernel is, and what it may be swapped into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from lightning_mono.model.layout import ModalityLayout


class Kernel(Protocol):
    """Sends each token through its modality's module and puts the results back in order.

    Laws, each tested for every kernel: outputs and gradients equal ``masked_dense``; a module that
    trains gets a gradient (of zeros) also where the batch holds no token of its modality, or
    distributed training would wait for it for ever; the device is never asked for a number.
    """

    def __call__(
        self, x: Tensor, layout: ModalityLayout, text: nn.Module, visual: nn.Module
    ) -> Tensor:
        """Maps (tokens, width in) to (tokens, width out); both modules work row by row."""
        ...


class NormingKernel(Kernel, Protocol):
    """A kernel that may norm rows on their way into a block; others leave that to the norm."""

    def normed(
        self,
        x: Tensor,
        layout: ModalityLayout,
        text: nn.Module,
        visual: nn.Module,
        norms: tuple[nn.Module, nn.Module],
    ) -> Tensor | None:
        """The block of normed rows, or None where it takes none but normed ones.

        Args:
            norms: of text and visual rows, one and the same where it is shared.
        """
        ...


@runtime_checkable
class Routed(Protocol):
    """A block with one module per modality; ``visual`` is None where it has no visual weights."""

    text: nn.Module
    visual: nn.Module | None
    kernel: Kernel


def compute_dtype(x: Tensor) -> torch.dtype:
    """What products of ``x`` are taken in: autocast's dtype where that is on, else its own.

    For what autocast does not know: operators of our own, and matrices that are not parameters.
    """
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype


def keep_in_graph(y: Tensor, x: Tensor, absent: nn.Module) -> Tensor:
    """Ties the module of an absent modality to the graph, through zero rows, if it trains."""
    if torch.is_grad_enabled() and any(p.requires_grad for p in absent.parameters()):
        return torch.cat([y, absent(x[:0])])
    return y
