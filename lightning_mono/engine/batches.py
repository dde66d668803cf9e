"""What the model is handed: a piece of one prompt, or a token of every running row."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_mono.engine.pieces import Piece
from lightning_mono.engine.request import Prompt
from lightning_mono.model.batch import Batch
from lightning_mono.model.layout import ModalityLayout


def piece_batch(prompt: Prompt, piece: Piece, device: torch.device) -> Batch:
    """A piece of a prompt as a batch of one row, at its own positions."""
    tokens = piece.end - piece.start
    visual = torch.from_numpy(prompt.visual[piece.start : piece.end])[None]
    return _batch(
        torch.from_numpy(prompt.ids[piece.start : piece.end])[None],
        torch.arange(piece.start, piece.end)[None],
        ModalityLayout.from_mask(visual),
        torch.from_numpy(prompt.tiles[piece.first : piece.last]),
        torch.ones(1, tokens, dtype=torch.int32),
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
        self._known: dict[int, tuple[ModalityLayout, Tensor]] = {}

    def batch(self, ids: Tensor, positions: Tensor, *, packed: bool) -> Batch:
        """Tokens (rows, 1), read as text, at positions (rows, 1)."""
        rows = len(ids)
        if rows not in self._known:
            layout = ModalityLayout.all_text(rows, 1, self._device)
            ones = torch.ones(rows, 1, dtype=torch.int32, device=self._device)
            self._known[rows] = layout, ones
        layout, ones = self._known[rows]
        return _batch(ids, positions, layout, self._no_tiles, ones, packed=packed)


def _batch(
    ids: Tensor,
    positions: Tensor,
    layout: ModalityLayout,
    tiles: Tensor,
    documents: Tensor,
    *,
    packed: bool = False,
) -> Batch:
    none = ids[:0, 0]
    return Batch(
        input_ids=ids,
        positions=positions,
        documents=documents,
        branches=torch.zeros_like(documents),
        layout=layout,
        pixel_values=tiles,
        predict=none,
        targets=none,
        weights=none,
        tokens=ids.numel(),
        packed=packed,
        plain=True,
    )
