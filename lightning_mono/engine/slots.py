"""Keys and values of the requests that are answered now: a row each, allocated once."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_mono.backbones.config import DecoderConfig


class Slots:
    """Room for ``capacity`` tokens in each of ``rows`` rows, at (layers, rows, kv heads, ...).

    The rows in use are always the first ones, so that what a step attends to is a view.

    Attributes:
        keys, values: (layers, rows, kv heads, capacity, head_dim).
    """

    def __init__(
        self,
        config: DecoderConfig,
        rows: int,
        capacity: int,
        *,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> None:
        shape = (config.layers, rows, config.kv_heads, capacity, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        heads = torch.arange(rows * config.kv_heads, device=device).view(rows, -1)
        self.starts = heads * capacity  # of each row and head, counted in tokens of a layer

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copies the first ``tokens`` of one row to another."""
        for kept in (self.keys, self.values):
            kept[:, target, :, :tokens] = kept[:, source, :, :tokens]

    def clear(self, row: int) -> None:
        """Forgets a row that may hold NaN: a weight of 0 does not hide it from rows behind."""
        for kept in (self.keys, self.values):
            kept[:, row] = 0

    def read(self, row: int, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Copies of a row's keys and values: (layers, kv heads, end - start, head_dim) each."""
        return self.keys[:, row, :, start:end].clone(), self.values[:, row, :, start:end].clone()

    def put(self, row: int, start: int, keys: Tensor, values: Tensor) -> None:
        """Writes what :meth:`read` gave."""
        end = start + keys.shape[2]
        self.keys[:, row, :, start:end] = keys
        self.values[:, row, :, start:end] = values


class RowView:
    """One row as the cache of a pass over a piece of its prompt.

    Attributes:
        length: tokens that the model takes to be in view besides the piece's own. With dynamic rope
            scaling that is the whole prompt, as if it were read in one pass.
    """

    def __init__(self, slots: Slots, row: int, start: int, *, length: int) -> None:
        self.length = length
        self._slots, self._row, self._start = slots, row, start

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores (1, kv heads, new, head_dim); returns the row's first tokens up to these."""
        row, end = slice(self._row, self._row + 1), self._start + keys.shape[2]
        all_keys = self._slots.keys[layer, row, :, :end]
        all_values = self._slots.values[layer, row, :, :end]
        all_keys[:, :, self._start :] = keys
        all_values[:, :, self._start :] = values
        return all_keys, all_values


class FirstRows:
    """The first rows as the cache of a step, in which each takes one token at its own column.

    All that differs by step is computed here, once; a layer writes twice and takes two views.

    Attributes:
        length: tokens of the longest row, without the new one.
    """

    def __init__(self, slots: Slots, lengths: Tensor, longest: int) -> None:
        """A step of as many rows as ``lengths``, (rows,) int64, has numbers."""
        rows = len(lengths)
        self.length = longest
        self._places = (slots.starts[:rows] + lengths[:, None]).view(-1)
        width = slots.keys.shape[-1]
        layers = len(slots.keys)
        self._flat_keys = slots.keys.view(layers, -1, width).unbind(0)
        self._flat_values = slots.values.view(layers, -1, width).unbind(0)
        self._keys = slots.keys[:, :rows, :, : longest + 1].unbind(0)
        self._values = slots.values[:, :rows, :, : longest + 1].unbind(0)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores (rows, kv heads, 1, head_dim); returns all rows up to the longest one's end."""
        shape = (-1, keys.shape[-1])
        self._flat_keys[layer].index_copy_(0, self._places, keys.reshape(shape))
        self._flat_values[layer].index_copy_(0, self._places, values.reshape(shape))
        return self._keys[layer], self._values[layer]
