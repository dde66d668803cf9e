"""The kernel ``triton``: FFNs and projections in fused launches, norms in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from lightning_mono.kernels.fused.ffn import ffn
from lightning_mono.kernels.fused.ffn import why_not as ffn_why_not
from lightning_mono.kernels.fused.linear import linear, qkv
from lightning_mono.kernels.fused.linear import why_not as linear_why_not
from lightning_mono.kernels.gathered import gathered
from torch import Tensor, nn

from lightning_mono.model.experts import QKV, SwiGLU

if TYPE_CHECKING:
    from lightning_mono.kernels.contract import Routed

    from lightning_mono.model.layout import ModalityLayout

Op = Callable[[Tensor, "ModalityLayout", Any, Any], Tensor]
WhyNot = Callable[[Any, Any, torch.dtype, torch.device], str | None]

SERVED: dict[type[nn.Module], tuple[Op, WhyNot]] = {
    SwiGLU: (ffn, ffn_why_not),
    QKV: (qkv, linear_why_not),
    nn.Linear: (linear, linear_why_not),
}
"""A block's text module -> what computes the block, and what says why it cannot."""


def fused(x: Tensor, layout: ModalityLayout, text: nn.Module, visual: nn.Module) -> Tensor:
    """Computes a block in Triton; with ``gathered`` where Triton does not serve it.

    That is what norms are left to, and a model that moved to a CPU after the kernel was chosen.
    """
    served = SERVED.get(type(text))
    if served is None or served[1](text, visual, _multiplied(x), x.device) is not None:
        return gathered(x, layout, text, visual)
    return served[0](x, layout, text, visual)


def why_not(blocks: Sequence[Routed], device: torch.device, dtype: torch.dtype) -> str | None:
    """Says what keeps Triton from FFNs and projections among the blocks; None where nothing does.

    Args:
        blocks: what the kernel would serve; none asks about device and dtype alone.
        device: where the blocks will be.
        dtype: what is multiplied, which under autocast is not that of the weights.
    """
    if not blocks:
        probe = nn.Linear(16, 16, device="meta")
        return linear_why_not(probe, probe, dtype, device)
    mine = [block for block in blocks if type(block.text) in SERVED]
    if not mine:
        return "no FFN and no projection has visual weights"
    reasons = (SERVED[type(b.text)][1](b.text, b.visual, dtype, device) for b in mine)
    return next((reason for reason in reasons if reason is not None), None)


def _multiplied(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
