"""Next-token prediction, at the supervised positions only."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_mono.model import Batch, MonoModel
from lightning_mono.objectives.liger import head_weight, serves, summed_loss

CHUNK = 2**25
"""Logits that exist at a time, in numbers: 128 MiB of them in fp32."""


def next_token_loss(
    model: MonoModel, batch: Batch, hidden: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Weighted mean cross entropy over the batch's targets (Mono-InternVL, eq. 5).

    Logits are computed, and their gradients too, in chunks of ``CHUNK`` numbers: those of a whole
    batch never exist, and nothing is computed twice. On a GPU where Liger-Kernel is installed, and
    targets weigh the same, it does so.

    Args:
        hidden: the decoder's output at the positions that predict, (1, n, hidden): the batch's
            ``wanted``. The head is the dearest layer, so it sees no others.
        weight: what to divide by, a scalar; by default the batch's own weights. Over several
            ranks their mean, so that averaged gradients are those of one large batch.

    Returns:
        A scalar; 0 for a batch without targets.
    """
    weight = batch.weights.sum() if weight is None else weight
    shares = batch.weights / weight.clamp(min=1e-9)
    rows, targets = hidden[0], batch.targets
    matrix = head_weight(model)
    if batch.even and len(targets) and matrix is not None and serves(rows.device):
        return summed_loss(rows, matrix, targets) * shares[0]
    if not torch.is_grad_enabled():
        return _sum_in_chunks(model, rows, targets, shares)
    head = [p for p in model.head_parameters() if p.requires_grad]
    return _ChunkedLoss.apply(rows, targets, shares, model, *head)


def _sum_in_chunks(model: MonoModel, rows: Tensor, targets: Tensor, shares: Tensor) -> Tensor:
    losses = [_loss(model, *chunk) for chunk in _chunks(model, rows, targets, shares)]
    return torch.stack(losses).sum()


def _chunks(model: MonoModel, *columns: Tensor) -> Any:
    """The rows of all columns, some at a time; one chunk where there are none."""
    some = max(CHUNK // model.config.decoder.vocab_size, 1)
    return zip(*(column.split(some) for column in columns), strict=True)


def _loss(model: MonoModel, rows: Tensor, targets: Tensor, shares: Tensor) -> Tensor:
    losses = F.cross_entropy(model.logits(rows).float(), targets, reduction="none")
    return (losses * shares).sum()


class _ChunkedLoss(torch.autograd.Function):
    """The loss, with its gradients computed on the way forward, while a chunk's logits are there.

    As in Liger-Kernel's fused linear cross entropy (Hsu et al. 2024, section 3.2), with PyTorch's
    own products. The way back multiplies by what comes from above.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, targets: Tensor, shares: Tensor, model: MonoModel, *head: Tensor
    ) -> Tensor:
        ctx.wants_rows = ctx.needs_input_grad[0]
        total = shares.new_zeros(())
        row_grads: list[Tensor] = []
        head_grads: list[Tensor] = []
        for some, ids, share in _chunks(model, rows, targets, shares):
            with torch.enable_grad():
                some = some.detach().requires_grad_(ctx.wants_rows)
                asked = [some, *head] if ctx.wants_rows else [*head]
                # Through a view: hooks on what modules read stand no leaves (FlopCounterMode).
                loss = _loss(model, some.view_as(some), ids, share)
            total += loss.detach()
            if not asked:
                continue
            grads = [*torch.autograd.grad(loss, asked)]
            if ctx.wants_rows:
                row_grads.append(grads.pop(0))
            if head_grads:
                for sum_, grad in zip(head_grads, grads, strict=True):
                    sum_ += grad
            else:
                head_grads = grads
        ctx.kept = [*([torch.cat(row_grads)] if row_grads else []), *head_grads]
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        kept, ctx.kept = ctx.kept, None
        if kept is None:
            raise RuntimeError("the loss gives its gradients once; compute it anew")
        for grad in kept:  # in place: the head's is as large as the head
            grad *= grads[0].to(grad.dtype)
        rows = kept.pop(0) if ctx.wants_rows else None
        return (rows, None, None, None, *kept)
