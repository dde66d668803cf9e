"""Keys and values of the requests that are answered now: a row each, allocated once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_mono.backbones.config import DecoderConfig
from lightning_mono.engine.errors import EngineError
from lightning_mono.model.attend import attend


class Slots:
    """Room for ``capacity`` tokens in each of ``rows`` rows.

    The rows in use are always the first ones, so that what a step attends to is a view.

    Attributes:
        keys, values: (layers, rows, kv heads, capacity, head_dim).
        starts: where each row and head begins among a layer's tokens, (rows, kv heads) int64.
        columns: 0, 1, ..., (capacity,) int64.

    Raises:
        EngineError: there is not so much memory.
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
        try:
            self.keys = torch.zeros(shape, device=device, dtype=dtype)
            self.values = torch.zeros(shape, device=device, dtype=dtype)
        except RuntimeError as error:
            size = 2 * math.prod(shape) * dtype.itemsize / 2**30
            raise EngineError(
                f"{rows} slots of {capacity} tokens take {size:,.1f} GiB, more than there is: make "
                "them fewer or smaller"
            ) from error
        heads = torch.arange(rows * config.kv_heads, device=device).view(rows, -1)
        self.starts = heads * capacity
        self.columns = torch.arange(capacity, device=device)

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

    attend = staticmethod(attend)

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

    def __init__(
        self, slots: Slots, lengths: Tensor, known: Sequence[int], runs: Sequence[tuple[int, int]]
    ) -> None:
        """Makes ready for a step.

        Args:
            lengths: tokens that each row has, (rows,) int64 on the device.
            known: the same numbers, where they can be read without asking the device.
            runs: start and end of the rows that attend together.
        """
        rows = len(known)
        self.length = longest = max(known)
        self._places = (slots.starts[:rows] + lengths[:, None]).view(-1)
        width = slots.keys.shape[-1]
        layers = len(slots.keys)
        self._flat_keys = slots.keys.view(layers, -1, width).unbind(0)
        self._flat_values = slots.values.view(layers, -1, width).unbind(0)
        self._keys = slots.keys[:, :rows, :, : longest + 1].unbind(0)
        self._values = slots.values[:, :rows, :, : longest + 1].unbind(0)
        self._runs: list[tuple[int, int, int, Tensor | None]] = []
        for start, end in runs:
            most = max(known[start:end]) + 1
            mask = None
            if min(known[start:end]) + 1 < most:
                mask = (slots.columns[:most] <= lengths[start:end, None])[:, None, None]
            self._runs.append((start, end, most, mask))

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores (rows, kv heads, 1, head_dim); returns all rows up to the longest one's end."""
        shape = (-1, keys.shape[-1])
        self._flat_keys[layer].index_copy_(0, self._places, keys.reshape(shape))
        self._flat_values[layer].index_copy_(0, self._places, values.reshape(shape))
        return self._keys[layer], self._values[layer]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Each row attends to its own tokens; which they are is known here, so no mask is given."""
        if mask is not None:
            raise ValueError("a step of rows knows what each of them sees; leave the mask out")
        if len(self._runs) == 1:
            return attend(q, k, v, self._runs[0][3])
        return torch.cat(
            [
                attend(q[start:end], k[start:end, :, :most], v[start:end, :, :most], own)
                for start, end, most, own in self._runs
            ]
        )
