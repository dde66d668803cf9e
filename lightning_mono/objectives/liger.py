"""Liger-Kernel's fused linear cross entropy: Triton turns logits into their gradient in place."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from lightning_mono.model import MonoModel
from lightning_mono.model.linear import PLAIN


def head_weight(model: MonoModel) -> Tensor | None:
    """The head's matrix, (vocabulary, hidden); None where it is more than one, as when rounded."""
    if model.head is None:
        return model.embed.weight
    plain = type(model.head) in PLAIN and model.head.bias is None
    return model.head.weight if plain else None


def serves(device: torch.device) -> bool:
    """Whether Liger-Kernel is installed, and its kernels run there."""
    triton = device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
    return triton and find_spec("liger_kernel") is not None


def summed_loss(rows: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of all rows, (n, hidden), added up: Hsu et al. 2024, section 3.2."""
    return _function()(rows, weight, targets, reduction="sum")


@cache
def _function() -> Any:
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    return liger_fused_linear_cross_entropy
