"""Prompts into slots, piece by piece, behind what is known of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from lightning_mono.engine.batches import piece_batch, piece_mask
from lightning_mono.engine.prefix import PrefixCache, keys_of
from lightning_mono.engine.request import Prompt
from lightning_mono.engine.rows import Row, pick
from lightning_mono.engine.slots import RowView, Slots

if TYPE_CHECKING:
    from lightning_mono.model.mono import MonoModel


class Reader:
    """Reads prompts.

    Attributes:
        prefix: what is kept of those that were read.
        passes: pieces that were computed so far.
    """

    def __init__(self, model: MonoModel, slots: Slots, prefix_bytes: int, unscaled: int) -> None:
        """Has read nothing.

        Args:
            unscaled: tokens beyond which rotary frequencies depend on how many are in view.
        """
        self.prefix = PrefixCache(prefix_bytes)
        self.passes = 0
        self._model, self._slots, self._unscaled = model, slots, unscaled

    def keys(self, prompt: Prompt) -> list[bytes]:
        """Under which the prefix cache has a prompt's pieces; none where it is off."""
        return list(keys_of(prompt, self._view(prompt))) if self.prefix.most else []

    def read(self, row: Row, slot: int) -> Tensor | None:
        """Takes what is known of a prompt and reads one piece behind it.

        Returns:
            The first id of the answer, (1,) int64, behind the last piece, which is read even where
            it is known; None behind others.
        """
        prompt, last = row.ticket.prompt, len(row.ticket.prompt.pieces) - 1
        while row.keys and row.piece < last and (known := self.prefix.get(row.keys[row.piece])):
            piece = prompt.pieces[row.piece]
            self._slots.put(slot, piece.start, *known)
            row.piece, row.length = row.piece + 1, piece.end
            row.ticket.cached_tokens += piece.end - piece.start
        piece, device = prompt.pieces[row.piece], self._model.device
        tokens = piece.end - piece.start
        view = self._view(prompt) or piece.end
        batch = piece_batch(prompt, piece, device)
        hidden = self._model.hidden(
            batch,
            mask=piece_mask(piece, device),
            cache=RowView(self._slots, slot, piece.start, length=view - tokens),
            wanted=batch.wanted,
        )
        self.passes += 1
        row.length = piece.end
        if row.keys and row.keys[row.piece] not in self.prefix:
            self.prefix.put(row.keys[row.piece], *self._slots.read(slot, piece.start, piece.end))
        row.piece += 1
        if row.piece <= last:
            return None
        self.prefix.touch(row.keys)
        return pick(self._model.logits(hidden[:, -1]).float(), [row])

    def _view(self, prompt: Prompt) -> int:
        """Tokens on which the prompt's rotary frequencies depend; 0 where they do not."""
        return len(prompt.ids) if len(prompt.ids) > self._unscaled else 0
