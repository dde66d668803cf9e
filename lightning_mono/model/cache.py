"""Keys and values of the tokens already read: preallocated, written in place."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_mono.backbones.config import DecoderConfig


class KVCache:
    """Room for ``capacity`` tokens in each of ``batch`` rows.

    Attributes:
        length: tokens written so far, the same in every row (short rows are padded in front).
        documents: which cached tokens are real, (batch, capacity) int32; 0 marks padding.
    """

    def __init__(
        self,
        config: DecoderConfig,
        batch: int,
        capacity: int,
        *,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> None:
        shape = (config.layers, batch, config.kv_heads, capacity, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.documents = torch.zeros(batch, capacity, device=device, dtype=torch.int32)
        self.length = 0

    @property
    def capacity(self) -> int:
        return self.keys.shape[3]

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores one layer's (batch, kv heads, new, head_dim); returns all so far, as views."""
        end = self.length + keys.shape[2]
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} tokens, {end} were asked for")
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, documents: Tensor) -> None:
        """Closes a step: all layers have written tokens of these documents (batch, new)."""
        end = self.length + documents.shape[1]
        self.documents[:, self.length : end] = documents
        self.length = end
