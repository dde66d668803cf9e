"""The requests that are answered now: all of them get their next token in one pass."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch

from lightning_mono.engine.batches import Columns
from lightning_mono.engine.groups import A_CALL, A_CALL_ELSEWHERE, group
from lightning_mono.engine.rows import Row, pick
from lightning_mono.engine.slots import FirstRows, Slots

if TYPE_CHECKING:
    from lightning_mono.model.mono import MonoModel


class Running:
    """Rows that take a step together: row i has slot i.

    Attributes:
        rows: what is known of them.
        a_call: what one more call to attention costs a layer, in columns of a row.
        steps: how many were taken so far.
    """

    def __init__(self, model: MonoModel, slots: Slots, rows: int, unscaled: int) -> None:
        """Begins without rows.

        Args:
            rows: how many there may be.
            unscaled: tokens beyond which rotary frequencies depend on how many are in view.
        """
        device, patchifier = model.device, model.config.patchifier
        self.rows: list[Row] = []
        self.a_call = A_CALL.get(device.type, A_CALL_ELSEWHERE)
        self.steps = 0
        self._model, self._slots, self._unscaled = model, slots, unscaled
        self._columns = Columns(patchifier.image_size if patchifier else 0, device)
        self._lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        self._last = torch.zeros(rows, dtype=torch.int64, device=device)
        self._runs: list[tuple[int, int]] = []  # that attend together; none: to be found anew

    def join(self, row: Row, first: int) -> None:
        """Takes a row in whose prompt is in the slot behind the last, and its first new id."""
        slot = len(self.rows)
        self.rows.append(row)
        self._lengths[slot], self._last[slot] = row.length, first
        self._runs = []

    def leave(self, gone: Collection[int]) -> None:
        """Lets rows go; the last ones that stay fill the gaps."""
        count = len(self.rows)
        left = count - len(gone)
        last = (slot for slot in reversed(range(count)) if slot not in gone)
        for gap in sorted(slot for slot in gone if slot < left):
            source = next(last)
            row = self.rows[gap] = self.rows[source]
            self._slots.move(source, gap, row.length)
            self._lengths[gap], self._last[gap] = self._lengths[source], self._last[source]
        del self.rows[left:]
        self._runs = []

    def step(self) -> list[int]:
        """The next id of every row; -1 where its logits are not finite."""
        count, model = len(self.rows), self._model
        lengths, last = self._lengths[:count], self._last[:count]
        known = [row.length for row in self.rows]
        self._runs = self._runs or group(known, self.a_call)
        cache = FirstRows(self._slots, lengths, known, self._runs)
        scaled = cache.length >= self._unscaled
        batch = self._columns.batch(last[:, None], lengths[:, None], packed=scaled)
        words = model.embed(batch.input_ids)  # no pixels: the patchifier is not called
        hidden = model.hidden(batch, cache=cache, embeddings=words)
        ids = pick(model.logits(hidden[:, -1]).float(), self.rows)
        last.copy_(ids)
        lengths += 1
        for row in self.rows:
            row.length += 1
        self.steps += 1
        return ids.tolist()
