"""What is asked of an engine, and what of it can be checked before it waits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from lightning_mono.engine.errors import RequestRefused, RequestTooLong
from lightning_mono.engine.pieces import Piece, cut
from lightning_mono.engine.settings import EngineSettings
from lightning_mono.model.placeholder import placeholder_id
from lightning_mono.model.sampling import Sampling

if TYPE_CHECKING:
    from lightning_mono.model.mono import MonoModel


@dataclass(frozen=True, eq=False)
class Request:
    """A prompt to continue.

    Attributes:
        input_ids: (tokens,) int64, image placeholders at their places.
        pixel_values: tiles of all images in order, (tiles, 3, size, size) float32, or None.
        max_new_tokens: at most so many new ids, at least 1.
        sampling: how they are chosen.
        stop_ids: an answer ends with the first of these.
        seed: makes sampling repeatable, whatever else the engine answers meanwhile; by default a
            fresh one is drawn.
        marks: where, in tokens, something ends that other prompts may begin with too: a system
            message, the conversation so far. The prefix cache then holds it exactly.
    """

    input_ids: np.ndarray
    pixel_values: np.ndarray | None = None
    max_new_tokens: int = 256
    sampling: Sampling = field(default_factory=Sampling)
    stop_ids: tuple[int, ...] = ()
    seed: int | None = None
    marks: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Prompt:
    """A request's prompt, checked and cut.

    Attributes:
        ids: (tokens,) int64.
        visual: which of them are image placeholders, (tokens,) bool.
        tiles: (tiles, 3, size, size) float32; 0 tiles allowed.
        pieces: what is read in one pass each, in order.
    """

    ids: np.ndarray
    visual: np.ndarray
    tiles: np.ndarray
    pieces: list[Piece]


def read_prompt(request: Request, model: MonoModel, settings: EngineSettings) -> Prompt:
    """Checks a request against the model and the engine's room, and cuts its prompt.

    Raises:
        RequestTooLong: it does not fit a slot.
        RequestRefused: ids, tiles or settings that the model cannot read.
    """
    ids = np.ascontiguousarray(request.input_ids, dtype=np.int64)
    words = model.config.decoder.vocab_size
    if ids.ndim != 1 or not len(ids):
        raise RequestRefused(f"input_ids must be (tokens,), at least one; got shape {ids.shape}")
    if ids.min() < 0 or ids.max() >= words:
        raise RequestRefused(
            f"input_ids must be from 0 to {words - 1}; they reach from {ids.min()} to {ids.max()}"
        )
    if request.max_new_tokens < 1:
        raise RequestRefused(f"max_new_tokens must be at least 1, got {request.max_new_tokens}")
    if len(ids) + request.max_new_tokens > settings.capacity:
        raise RequestTooLong(
            f"{len(ids)} tokens of the prompt and {request.max_new_tokens} new ones are more than "
            f"the {settings.capacity} that a request may have; ask for fewer or shorten the prompt"
        )
    tiles, a_tile = _tiles(request, model)
    visual = _visual(ids, model, len(tiles) * a_tile, a_tile)
    pieces = cut(visual, a_tile, settings.chunk, settings.block, request.marks)
    return Prompt(ids, visual, tiles, pieces)


def _tiles(request: Request, model: MonoModel) -> tuple[np.ndarray, int]:
    """The tiles, and how many tokens each makes."""
    patchifier, tiles = model.config.patchifier, request.pixel_values
    if patchifier is None:
        if tiles is not None and len(tiles):
            raise RequestRefused("this model reads text only; leave the images out")
        return np.zeros((0, 3, 0, 0), np.float32), 1
    size = patchifier.image_size
    if tiles is None or not len(tiles):
        return np.zeros((0, 3, size, size), np.float32), patchifier.tokens_per_tile
    step = patchifier.patch_size * patchifier.merge
    if tiles.ndim != 4 or tiles.shape[1] != 3 or tiles.shape[2] % step or tiles.shape[3] % step:
        raise RequestRefused(
            f"pixel_values must be (tiles, 3, {size}, {size}), or of another size that {step} "
            f"divides; got {tiles.shape}"
        )
    tiles = np.ascontiguousarray(tiles, dtype=np.float32)
    if not np.isfinite(tiles).all():
        raise RequestRefused("pixel_values hold NaN or infinity")
    return tiles, patchifier.tokens_of(torch.from_numpy(tiles))


def _visual(ids: np.ndarray, model: MonoModel, wanted: int, a_tile: int) -> np.ndarray:
    """Which ids are image placeholders, (tokens,) bool: as many as the tiles make."""
    image_id = model.config.image_context_id
    if image_id is None:
        if not wanted:
            return np.zeros(len(ids), dtype=bool)
        row = torch.from_numpy(ids)[None]
        try:
            image_id = placeholder_id(row, torch.ones_like(row, dtype=torch.bool), wanted, a_tile)
        except ValueError as error:
            raise RequestRefused(str(error)) from error
    visual = ids == image_id
    edges = np.flatnonzero(np.diff(visual, prepend=False, append=False))
    if visual.sum() != wanted or ((edges[1::2] - edges[::2]) % a_tile).any():
        raise RequestRefused(
            f"{visual.sum()} image tokens in the prompt, but the tiles make {wanted}, "
            f"in runs of {a_tile} a tile"
        )
    return visual
