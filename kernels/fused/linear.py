"""Fused q, k, v and output projections of both modalities.

y = x W^T + b with text's weights for text rows and visual weights for visual rows, in one launch;
query, key and value side by side in that launch. Rows are found through the layout and weights
through their own pointers, so no token and no weight is gathered, stacked or copied.

Products are taken in the dtype of ``x``, or in autocast's; weights of another dtype are converted
as they are read, and get gradients in their own dtype. Sums are fp32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from lightning_mono.kernels.fused.launch import interpreted
from lightning_mono.kernels.fused.linear_op import project
from torch import Tensor, nn

from lightning_mono.model.experts import QKV, RMSNorm

if TYPE_CHECKING:
    from lightning_mono.model.layout import ModalityLayout

DTYPES = (torch.bfloat16, torch.float32)

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

    Raises:
        ValueError: these modules, this dtype or this device cannot be served (:func:`why_not`).
    """
    return _projected(x, layout, text, visual, norms)


def qkv(
    x: Tensor, layout: ModalityLayout, text: QKV, visual: QKV, *, norms: Norms | None = None
) -> Tensor:
    """(tokens, hidden) -> (tokens, q + k + v), as :class:`QKV` lays them out.

    Norms of heads (Qwen3) follow the launch in PyTorch: they read heads, which a tile of columns
    may cut, and cost a copy of the result.

    Raises:
        ValueError: as :func:`linear` does.
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
    reason = _why_not_on(device)
    if reason is not None:
        return reason
    if dtype not in DTYPES:
        return f"fused projections compute in bf16 or fp32, not in {dtype}"
    parts = [*_parts(text), *_parts(visual)]
    other = next((type(part).__name__ for part in parts if type(part) is not nn.Linear), None)
    if other is not None:
        return f"fused projections read plain nn.Linear, not {other}"
    return _why_not_weights(_parts(text), _parts(visual))


@torch.compiler.assume_constant_result
def _why_not_on(device: torch.device) -> str | None:
    if device.type != "cuda" and not interpreted():
        return f"fused projections need a CUDA device, and the model is on {device.type}"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        return f"fused projections need compute capability 8.0, which {device} does not have"
    return None


def _why_not_weights(text: list[Any], visual: list[Any]) -> str | None:
    """Why not, of two modalities' nn.Linear side by side."""
    if [part.weight.shape for part in text] != [part.weight.shape for part in visual]:
        return "fused projections need text and visual weights of the same sizes"
    for part in (*text, *visual):
        if part.weight.dtype not in DTYPES:
            return f"fused projections read bf16 or fp32 weights, not {part.weight.dtype}"
        if part.weight.stride(1) != 1:
            return "fused projections read weights row by row, and one is transposed"
        if any(size % 16 for size in part.weight.shape):
            sizes = "x".join(map(str, part.weight.shape[::-1]))
            return f"fused projections need sizes that are multiples of 16, not {sizes}"
    for side in (text, visual):
        if len({(part.weight.dtype, part.bias is None) for part in side}) > 1:
            return "fused projections need query, key and value alike in dtype and bias"
    return None


def _parts(module: nn.Module) -> list[Any]:
    return [module.q, module.k, module.v] if isinstance(module, QKV) else [module]


def _projected(
    x: Tensor, layout: ModalityLayout, text: nn.Module, visual: nn.Module, norms: Norms | None
) -> Tensor:
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        x = x.to(torch.get_autocast_dtype(kind))
    reason = why_not(text, visual, x.dtype, x.device)
    if reason is not None:
        raise ValueError(reason)
    sides = _parts(text), _parts(visual)
    y, _ = project(
        x,
        layout.text.index,
        layout.visual.index,
        *([part.weight for part in side] for side in sides),
        *([part.bias for part in side if part.bias is not None] for side in sides),
        [norm.weight for norm in norms] if norms else [],
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
