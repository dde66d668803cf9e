"""Attention rollout: how much of each input position reaches a position through all layers."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_mono.attention.capture import head_mean


class Rollout:
    """Attention rollout (Abnar and Zuidema 2020, equation 1) of one pass; hand it on as ``watch``.

    With A the weights of a layer averaged over heads, the residual path counts as much as the
    attention: R = (A + I) / 2 times the R of the layer below, and the identity below the first.
    Rows sum to 1. It says where information can have come from, not that it did.

    The whole prompt has to come in one pass: a row needs those of all layers below it. Two squares
    of (tokens x tokens) fp32 a sample are held at a time.
    """

    def __init__(self) -> None:
        self._flow: Tensor | None = None

    @torch.no_grad()
    def __call__(self, layer: int, q: Tensor, k: Tensor, mask: Tensor | None) -> None:
        tokens, keys = q.shape[2], k.shape[2]
        if tokens != keys:
            raise ValueError(f"rollout needs all {keys} tokens in one pass, this one has {tokens}")
        mixed = head_mean(q, k, mask, torch.arange(tokens, device=q.device))[:, 0].mul_(0.5)
        mixed.diagonal(dim1=1, dim2=2).add_(0.5)
        self._flow = mixed if layer == 0 or self._flow is None else mixed @ self._flow

    @property
    def flow(self) -> Tensor:
        """(batch, tokens, tokens) fp32 on the CPU: what each column gave to each row.

        Raises:
            ValueError: nothing was read yet.
        """
        if self._flow is None:
            raise ValueError("nothing was read yet")
        return self._flow.cpu()
