"""Norms of gradients by parameter group, clipping by all of them together, and reading them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def norms_by_group(groups: Iterable[Mapping[str, Any]]) -> dict[str, Tensor]:
    """L2 norm of the gradients of each parameter group, scalars; groups without any are left out.

    Args:
        groups: an optimizer's; several of one name count as one.
    """
    norms: dict[str, list[Tensor]] = defaultdict(list)
    for group in groups:
        gradients = [p.grad for p in group["params"] if p.grad is not None]
        if gradients:
            norms[group["name"]].append(_whole(torch.nn.utils.get_total_norm(gradients)))
    return {name: joined(each) for name, each in norms.items()}


def joined(norms: Iterable[Tensor]) -> Tensor:
    """The norm of what these are the norms of."""
    return torch.linalg.vector_norm(torch.stack(list(norms)))


def clip(groups: Iterable[Mapping[str, Any]], norms: Mapping[str, Tensor], limit: float) -> None:
    """Scales all gradients alike, in place, so that their norm together is at most ``limit``.

    Args:
        groups: an optimizer's.
        norms: of their gradients, as :func:`norms_by_group` gives them.
        limit: 0 leaves them as they are.
    """
    if not limit or not norms:
        return
    parameters = [p for group in groups for p in group["params"] if p.grad is not None]
    torch.nn.utils.clip_grads_with_norm_(parameters, limit, joined(norms.values()))


def read_scalars(values: Sequence[Tensor]) -> list[float]:
    """Numbers from their device, in one transfer; to fp32's precision."""
    return torch.stack([value.float() for value in values]).tolist()


def _whole(norm: Tensor) -> Tensor:
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
