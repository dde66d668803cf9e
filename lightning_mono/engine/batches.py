"""What the model is handed: a piece of one prompt, or a token of every running row."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_mono.engine.pieces import Piece
from lightning_mono.engine.request import Prompt
from lightning_mono.model.batch import Batch
from lightning_mono.model.layout import ModalityLayout
from lightning_mono.model.wanted import Wanted


def piece_batch(prompt: Prompt, piece: Piece, device: torch.device) -> Batch:
    """A piece of a prompt as a batch of one row, at its own positions.

    Wanted is the end of the prompt, where it is in the piece. What is kept of a piece is computed
    in the same way whether it is the last one or not.
    """
    layout = ModalityLayout.from_mask(
        torch.from_numpy(prompt.visual[piece.start : piece.end])[None]
    )
    last = piece.end == len(prompt.ids)
    return _batch(
        torch.from_numpy(prompt.ids[piece.start : piece.end])[None],
        torch.arange(piece.start, piece.end)[None],
        layout,
        Wanted.last_column(layout) if last else Wanted.nothing(layout),
        torch.from_numpy(prompt.tiles[piece.first : piece.last]),
    ).to(device)


def piece_mask(piece: Piece, device: torch.device) -> Tensor | None:
    """Causal behind all that was read before: (1, 1, tokens, keys) bool; None where plain."""
    tokens = piece.end - piece.start
    if piece.start == 0 or tokens == 1:
        return None
    pairs = torch.ones(tokens, piece.end, dtype=torch.bool, device=device)
    return pairs.tril(piece.start)[None, None]


class Columns:
    """Batches of one new token a row, with all that does not change from step to step made once."""

    def __init__(self, image_size: int, device: torch.device) -> None:
        self._no_tiles = torch.zeros(0, 3, image_size, image_size, device=device)
        self._device = device
        self._known: dict[int, tuple[ModalityLayout, Wanted]] = {}

    def batch(self, ids: Tensor, positions: Tensor, *, packed: bool) -> Batch:
        """Tokens (rows, 1), read as text, at positions (rows, 1); all outputs are wanted."""
        rows = len(ids)
        if rows not in self._known:
            layout = ModalityLayout.all_text(rows, 1, self._device)
            self._known[rows] = layout, Wanted.nothing(layout)
        return _batch(ids, positions, *self._known[rows], self._no_tiles, packed=packed)


def _batch(
    ids: Tensor,
    positions: Tensor,
    layout: ModalityLayout,
    wanted: Wanted,
    tiles: Tensor,
    *,
    packed: bool = False,
) -> Batch:
    documents = torch.ones_like(ids, dtype=torch.int32)
    return Batch.reading(
        ids,
        positions,
        documents,
        layout,
        tiles,
        tokens=ids.numel(),
        wanted=wanted,
        packed=packed,
    )
