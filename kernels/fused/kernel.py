"""The kernels ``triton`` and ``triton_recompute``: blocks in fused launches.

They compute FFNs, projections and the norm before q, k, v. The second keeps no activation of width
d_ff for the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from lightning_mono.kernels.contract import compute_dtype
from lightning_mono.kernels.fused.ffn import RECOMPUTE, SAVE, Saving, ffn
from lightning_mono.kernels.fused.ffn import why_not as ffn_why_not
from lightning_mono.kernels.fused.linear import linear, qkv
from lightning_mono.kernels.fused.linear import why_not as linear_why_not
from lightning_mono.kernels.fused.serves import why_not_on
from lightning_mono.kernels.gathered import gathered
from torch import Tensor, nn

from lightning_mono.model.experts import QKV, RMSNorm, SwiGLU
from lightning_mono.model.linear import Linear
from lightning_mono.model.quantised import QuantisedLinear

if TYPE_CHECKING:
    from lightning_mono.kernels.contract import Routed

    from lightning_mono.model.layout import ModalityLayout

Op = Callable[[Tensor, "ModalityLayout", Any, Any], Tensor]
WhyNot = Callable[[Any, Any, torch.dtype, torch.device], str | None]

SERVED: dict[type[nn.Module], tuple[Op, WhyNot]] = {
    SwiGLU: (ffn, ffn_why_not),
    QKV: (qkv, linear_why_not),
    nn.Linear: (linear, linear_why_not),
    Linear: (linear, linear_why_not),
    QuantisedLinear: (linear, linear_why_not),
}
"""A block's text module -> what computes the block, and what says why it cannot."""


@dataclass(frozen=True)
class Fused:
    """A kernel; see :class:`NormingKernel`.

    Attributes:
        saving: what FFNs keep for their backward pass.
    """

    saving: Saving = SAVE

    def __call__(
        self, x: Tensor, layout: ModalityLayout, text: nn.Module, visual: nn.Module
    ) -> Tensor:
        """Computes a block in Triton; with ``gathered`` where Triton does not serve it.

        That is what norms are left to, and a model that moved to a CPU after the kernel was chosen.
        """
        served = SERVED.get(type(text))
        if served is None or served[1](text, visual, compute_dtype(x), x.device) is not None:
            return gathered(x, layout, text, visual)
        if isinstance(text, SwiGLU):
            return ffn(x, layout, text, visual, self.saving)
        return served[0](x, layout, text, visual)

    def normed(
        self,
        x: Tensor,
        layout: ModalityLayout,
        text: nn.Module,
        visual: nn.Module,
        norms: tuple[nn.Module, nn.Module],
    ) -> Tensor | None:
        """Queries, keys and values of rows that are normed in the same launch.

        Where autocast has rows cast first, as in mixed precision, the norm is left to PyTorch: to
        cast costs what the norm costs, and the norm reads fp32.
        """
        ready = type(text) is QKV and compute_dtype(x) == x.dtype
        if not ready or any(type(norm) is not RMSNorm for norm in norms):
            return None
        if linear_why_not(text, visual, x.dtype, x.device) is not None:
            return None
        return qkv(x, layout, text, visual, norms=norms)  # type: ignore[arg-type]


fused = Fused()
recomputing = Fused(RECOMPUTE)


def why_not(blocks: Sequence[Routed], device: torch.device, dtype: torch.dtype) -> str | None:
    """Says what keeps Triton from FFNs and projections among the blocks; None where nothing does.

    Args:
        blocks: what the kernel would serve; none asks about device and dtype alone.
        device: where the blocks will be.
        dtype: what is multiplied, which under autocast is not that of the weights.
    """
    if not blocks:
        return why_not_on(device, dtype)
    mine = [block for block in blocks if type(block.text) in SERVED]
    if not mine:
        return "no FFN and no projection has visual weights"
    reasons = (SERVED[type(b.text)][1](b.text, b.visual, dtype, device) for b in mine)
    return next((reason for reason in reasons if reason is not None), None)
