"""Fused q, k, v and output projections of both modalities.

y = x W^T + b with text's weights for text rows and visual weights for visual rows, in one launch;
query, key and value side by side in that launch. Rows are found through the layout and weights
through their own pointers, so no token and no weight is gathered, stacked or copied.

Products are taken in the dtype of ``x``, or in autocast's; weights of another dtype are converted
as they are read, and get gradients in their own dtype. Sums are fp32.
"""

from __future__ import annotations

from itertools import starmap
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from lightning_mono.kernels.contract import compute_dtype
from lightning_mono.kernels.fused import serves
from lightning_mono.kernels.fused.linear_op import project
from lightning_mono.kernels.fused.serves import Form
from lightning_mono.kernels.fused.weights import scales_of
from torch import Tensor, nn

from lightning_mono.model.experts import QKV, RMSNorm

if TYPE_CHECKING:
    from lightning_mono.model.layout import ModalityLayout

Norms = tuple[RMSNorm, RMSNorm]
"""Text's and visual's norm of the input, one and the same where it is shared."""


def linear(
    x: Tensor,
    layout: ModalityLayout,
    text: nn.Linear,
    visual: nn.Linear,
    *,
    norms: Norms | None = None,
) -> Tensor:
    """(tokens, width in) -> (tokens, width out), of the rows or of the rows normed.

    Ask :func:`why_not` before: nothing of it is checked here, nor in :func:`qkv`.
    """
    return _projected(x, layout, text, visual, norms)


def qkv(
    x: Tensor, layout: ModalityLayout, text: QKV, visual: QKV, *, norms: Norms | None = None
) -> Tensor:
    """(tokens, hidden) -> (tokens, q + k + v), as :class:`QKV` lays them out.

    Norms of heads (Qwen3) follow the launch in PyTorch: they read heads, which a tile of columns
    may cut, and cost a copy of the result.
    """
    y = _projected(x, layout, text, visual, norms)
    if text.q_norm is None:
        return y
    sizes = [part.out_features for part in (text.q, text.k, text.v)]
    q, k, v = y.split(sizes, dim=-1)
    q = _normed_heads(q, layout, text.q_norm, visual.q_norm)
    k = _normed_heads(k, layout, text.k_norm, visual.k_norm)
    return torch.cat([q, k, v], dim=-1)


def why_not(
    text: nn.Module, visual: nn.Module, dtype: torch.dtype, device: torch.device
) -> str | None:
    """Why the fused projections cannot serve these modules; None if they can.

    Args:
        text, visual: nn.Linear or QKV, alike.
        dtype: of the tokens, or of autocast.
        device: of the tokens.
    """
    sides = (tuple(starmap(Form.of, _parts(module).items())) for module in (text, visual))
    return serves.why_not(*sides, dtype, device)


def _parts(module: nn.Module) -> dict[str, Any]:
    if isinstance(module, QKV):
        return {"q": module.q, "k": module.k, "v": module.v}
    return {"the projection": module}


def _projected(
    x: Tensor, layout: ModalityLayout, text: nn.Module, visual: nn.Module, norms: Norms | None
) -> Tensor:
    sides = [_parts(module).values() for module in (text, visual)]
    y, _ = project(
        x.to(compute_dtype(x)),
        layout.text.index,
        layout.visual.index,
        *([part.weight for part in side] for side in sides),
        *([part.bias for part in side if part.bias is not None] for side in sides),
        [norm.weight for norm in norms] if norms else [],
        scales_of(sides[0]),
        norms[0].eps if norms else 0.0,
    )
    return y


def _normed_heads(
    x: Tensor, layout: ModalityLayout, text: RMSNorm | None, visual: RMSNorm | None
) -> Tensor:
    """Norms each head of (tokens, heads * head_dim) with its modality's weight."""
    if text is None or visual is None:
        return x
    heads = x.unflatten(-1, (-1, text.weight.shape[0]))
    weight = torch.where(layout.mask.reshape(-1, 1, 1), visual.weight, text.weight)
    wide = F.rms_norm(heads.float(), heads.shape[-1:], eps=text.eps)
    return (wide.to(x.dtype) * weight.to(x.dtype)).flatten(-2)
