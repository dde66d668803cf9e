"""Keys and values of the tokens already read: preallocated, written in place."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_mono.backbones.config import DecoderConfig
from lightning_mono.model.attend import attend


class Cache(Protocol):
    """What a forward pass asks of a cache.

    Attributes:
        length: tokens in view besides those of the pass; rotary scaling may depend on it.
    """

    length: int

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores one layer's (batch, kv heads, new, head_dim); returns all that is attended to."""
        ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """What :func:`lightning_mono.model.attend.attend` gives, for keys and values of `write`."""
        ...


class KVCache:
    """Room for ``capacity`` columns of tokens in each of ``batch`` rows.

    Attributes:
        length: columns written so far, the same in every row (short rows have padding in between).
        documents: which cached tokens are real, (batch, capacity) int32; 0 marks padding.
        words: ids of the tokens that were read as text, (batch, capacity) int64; -1 elsewhere.
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
        self.words = torch.full((batch, capacity), -1, device=device)
        self.length = 0

    attend = staticmethod(attend)

    @property
    def capacity(self) -> int:
        return self.keys.shape[3]

    def reserve(self, capacity: int) -> None:
        """Makes room for ``capacity`` columns where there are fewer; what is written stays."""
        more = capacity - self.capacity
        if more > 0:
            self.keys = F.pad(self.keys, (0, 0, 0, more))
            self.values = F.pad(self.values, (0, 0, 0, more))
            self.documents = F.pad(self.documents, (0, more))
            self.words = F.pad(self.words, (0, more), value=-1)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores one layer's (batch, kv heads, new, head_dim); returns all so far, as views."""
        end = self.length + keys.shape[2]
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} tokens, {end} were asked for")
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, documents: Tensor, words: Tensor) -> None:
        """Closes a step: all layers have written tokens of these documents, (batch, new)."""
        end = self.length + documents.shape[1]
        self.documents[:, self.length : end] = documents
        self.words[:, self.length : end] = words
        self.length = end

    def keep(self, counts: Tensor) -> None:
        """Hides all but the first (batch,) real tokens of each row; drops columns without any."""
        documents = self.documents[:, : self.length]
        documents *= documents.cumsum(1) <= counts[:, None]
        kept = documents.any(0).nonzero()[:, 0]
        self.length = int(kept[-1]) + 1 if len(kept) else 0

    def seen(self, vocabulary: int) -> Tensor:
        """Which ids were read as text: (batch, vocabulary) bool."""
        words = self.words[:, : self.length]
        words = words.where((self.documents[:, : self.length] != 0) & (words >= 0), vocabulary)
        seen = torch.zeros(len(words), vocabulary + 1, dtype=torch.bool, device=words.device)
        return seen.scatter_(1, words, True)[:, :-1]
