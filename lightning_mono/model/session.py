"""What a model has read so far: conversations of several turns, with images in any of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_mono.model.attention import Watch
from lightning_mono.model.batch import Batch
from lightning_mono.model.cache import KVCache
from lightning_mono.model.layout import ModalityLayout
from lightning_mono.model.mask import allowed_pairs
from lightning_mono.model.rows import batch_columns
from lightning_mono.model.sampling import Sampling
from lightning_mono.model.wanted import Wanted

if TYPE_CHECKING:
    from lightning_mono.model.mono import MonoModel


@dataclass(frozen=True, eq=False)
class Pending:
    """The ids emitted last, which the model has not read yet.

    Attributes:
        ids: (batch,) int64.
        real: (batch,) bool; False in rows that had stopped before, and only repeat their stop id.
        stopped: in how many rows it is False.
    """

    ids: Tensor
    real: Tensor
    stopped: int


class Session:
    """A conversation in each of ``batch`` rows, behind one cache that grows.

    A turn is a chunk of new tokens (text, images or both) and what the model says to it. Rows are
    independent: a row of a ragged batch says what it would say alone. What is real in the cache is
    known by column and row, so padding may stand anywhere in it.

    Args:
        model: the model, on the device it is to run on.
        batch: rows of every chunk.

    Attributes:
        cache: keys and values of what was read; reserve room in it to spare it from growing.
        watch: is shown what each layer attends with, at every chunk and every new token.
        piece: columns of a chunk that are computed at a time, where nothing watches and the chunk
            is not so long that dynamic rope scaling sets in.
    """

    piece = 4096

    def __init__(self, model: MonoModel, batch: int = 1) -> None:
        self.model = model
        self.batch = batch
        self.cache = KVCache(
            model.config.decoder, batch, 0, device=model.device, dtype=model.embed.weight.dtype
        )
        self.watch: Watch | None = None
        self._counts = torch.zeros(batch, dtype=torch.int64, device=model.device)  # real tokens
        self._plain = True  # no padding in the cache
        self._pending: Pending | None = None

    @property
    def length(self) -> int:
        """Columns read, padding included; a pending one is not."""
        return self.cache.length

    # -- a turn -----------------------------------------------------------------------------

    @torch.inference_mode()
    def read(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        tiles_per_sample: Tensor | None = None,
    ) -> Tensor:
        """Reads a chunk behind all that came before it.

        Args:
            input_ids: new tokens, (batch, tokens) int64, padded on either side where ragged; none,
                (batch, 0), reads what is pending.
            pixel_values: tiles of the new images in order, (tiles, 3, size, size).
            attention_mask: (batch, tokens), 0 where a token is padding.
            tiles_per_sample: (batch,) whose tiles are whose; checked where given.

        Returns:
            Logits of the next token, (batch, vocabulary) fp32.

        Raises:
            ValueError: the chunk does not fit session or pixels, or leaves a row without a token.
                The session is as it was.
        """
        return self._run(self._chunk(input_ids, pixel_values, attention_mask, tiles_per_sample))

    def stream(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        tiles_per_sample: Tensor | None = None,
        max_new_tokens: int = 16,
        *,
        stop_ids: Collection[int] = (),
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
    ) -> Iterator[Tensor]:
        """Reads a chunk and continues every row, as steps are asked for.

        Iteration may end at any step: the session then holds the ids that were yielded.

        Args:
            input_ids, pixel_values, attention_mask, tiles_per_sample: as in :meth:`read`.
            max_new_tokens: at most so many new ids; with 0, the chunk is read.
            stop_ids: a row that emits one of these is done. What it yields further repeats that id
                and is no part of the conversation.
            temperature, top_p, top_k, repetition_penalty: see :class:`Sampling`. The penalty counts
                text of the chunks read and of the answers, not image placeholders or padding.
            seed: makes sampling repeatable; by default it draws from PyTorch's global generator.

        Yields:
            (batch,) int64, one new id a row, until all rows are done.
        """
        sampling = Sampling(temperature, top_p, top_k, repetition_penalty)
        chunk = (input_ids, pixel_values, attention_mask, tiles_per_sample)
        return self._steps(chunk, max_new_tokens, sampling, stop_ids, seed)

    def generate(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The ids that :meth:`stream` yields, side by side: (batch, new) int64."""
        steps = list(self.stream(input_ids, *args, **kwargs))
        return torch.stack(steps, dim=1) if steps else input_ids[:, :0]

    @torch.inference_mode()
    def rewind(self, tokens: int) -> None:
        """Forgets the last ``tokens`` tokens of every row, a pending one included.

        Padding is no token: rows of a ragged batch lose as many tokens each.

        Raises:
            ValueError: a row has fewer tokens.
        """
        if tokens == 0:
            return
        pending = torch.zeros_like(self._counts) if self._pending is None else self._pending.real
        counts = self._counts + pending - tokens
        if tokens < 0 or bool((counts < 0).any()):
            have = (self._counts + pending).tolist()
            raise ValueError(f"cannot forget {tokens} tokens of rows that have {have}")
        self.cache.keep(counts)
        self._counts, self._pending = counts, None
        self._plain = bool(self.cache.documents[:, : self.length].all())

    # -- steps ------------------------------------------------------------------------------

    @torch.inference_mode()
    def _steps(
        self,
        chunk: tuple[Tensor, Tensor | None, Tensor | None, Tensor | None],
        max_new_tokens: int,
        sampling: Sampling,
        stop_ids: Collection[int],
        seed: int | None,
    ) -> Iterator[Tensor]:
        device = self.model.device
        generator = None if seed is None else torch.Generator(device).manual_seed(seed)
        stops = torch.tensor(sorted(stop_ids), device=device, dtype=torch.int64)
        batch = self._chunk(*chunk)
        self._make_room(batch.input_ids.shape[1] + max(max_new_tokens - 1, 0))
        logits = self._run(batch)
        seen = self.cache.seen(logits.shape[1]) if sampling.repetition_penalty != 1.0 else None
        last = torch.zeros_like(self._counts)
        done = torch.zeros_like(last, dtype=torch.bool)
        finished = 0
        for step in range(max_new_tokens):
            last = torch.where(done, last, sampling.pick(logits, seen, generator))
            pending = self._pending = Pending(last, ~done, finished)
            if seen is not None:
                seen.scatter_(1, last[:, None], True)
            if len(stops):  # else nothing is asked of the device
                done = done | torch.isin(last, stops)
                finished = int(done.sum())
            yield last
            if finished == self.batch or step + 1 == max_new_tokens:
                return
            if self._pending is not pending:
                raise ValueError("the session was read or rewound meanwhile; stream anew")
            logits = self._run(self._column(pending, batch.pixel_values[:0]))

    def _run(self, batch: Batch) -> Tensor:
        """Runs one chunk behind what the cache holds: logits of the next token, fp32."""
        columns, before = batch.input_ids.shape[1], self.length
        self._make_room(columns)
        plain = self._plain and batch.plain
        try:
            hidden = self._read_in_pieces(batch, plain)
            logits = self.model.logits(hidden.view(self.batch, -1)).float()
        except BaseException:
            self.cache.length = before
            raise
        # Nothing has failed: from here on the chunk is part of the conversation.
        self._counts = self._counts + batch.documents.sum(1)
        self._plain, self._pending = plain, None
        return logits

    def _read_in_pieces(self, batch: Batch, plain: bool) -> Tensor:
        """Hidden states of the last column; a long chunk takes no more memory than a piece."""
        columns = batch.input_ids.shape[1]
        if columns <= self.piece or self.watch is not None or self._stretches(columns):
            return self._read(batch, None, plain, end=True)
        embeddings = self.model.embeddings(batch)
        for start in range(0, columns, self.piece):
            stop = min(start + self.piece, columns)
            piece = batch_columns(batch, start, stop)
            hidden = self._read(piece, embeddings[:, start:stop], plain, end=stop == columns)
        return hidden

    def _stretches(self, columns: int) -> bool:
        """Whether rotary frequencies depend on how long a chunk is in all, as with dynamic NTK."""
        decoder = self.model.config.decoder
        dynamic = decoder.rope_scaling is not None and decoder.rope_scaling.kind == "dynamic"
        return dynamic and self.length + columns > decoder.max_positions

    def _read(self, batch: Batch, embeddings: Tensor | None, plain: bool, *, end: bool) -> Tensor:
        """One pass over neighbouring columns, which are in the cache from then on."""
        columns, mask = batch.input_ids.shape[1], None
        if not plain or (self.length > 0 and columns > 1):
            read = self.cache.documents[:, : self.length]
            keys = torch.cat([read, batch.documents], dim=1)
            mask = allowed_pairs(
                batch.documents, batch.branches, keys, torch.zeros_like(keys), offset=self.length
            )
        wanted: Wanted | None = Wanted.nothing(batch.layout)
        if end:
            wanted = Wanted.last_column(batch.layout) if columns > 1 else None
        hidden = self.model.hidden(
            batch,
            mask=mask,
            cache=self.cache,
            watch=self.watch,
            wanted=wanted,
            embeddings=embeddings,
        )
        self.cache.advance(batch.documents, batch.input_ids.masked_fill(batch.layout.mask, -1))
        return hidden

    def _make_room(self, columns: int) -> None:
        """Doubles a cache that is too short, so that growing costs little a token."""
        needed = self.length + columns
        if needed > self.cache.capacity:
            self.cache.reserve(max(needed, 2 * self.cache.capacity))

    # -- chunks -----------------------------------------------------------------------------

    def _chunk(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None,
        attention_mask: Tensor | None,
        tiles_per_sample: Tensor | None,
    ) -> Batch:
        """The pending ids, as text, and the new tokens behind them, padded in front."""
        if len(input_ids) != self.batch:
            raise ValueError(f"the session has {self.batch} rows, input_ids {len(input_ids)}")
        batch = self.model.batch(input_ids, pixel_values, attention_mask, tiles_per_sample)
        ids, documents, visual = batch.input_ids, batch.documents, batch.layout.mask
        plain, tokens = batch.plain, batch.tokens
        if self._pending is not None:
            column = self._pending.ids[:, None]
            ids = torch.cat([column, ids], dim=1)
            documents = torch.cat([self._pending.real[:, None].int(), documents], dim=1)
            visual = torch.cat([torch.zeros_like(column, dtype=torch.bool), visual], dim=1)
            plain = plain and self._pending.stopped == 0
            tokens += self.batch - self._pending.stopped
        if not plain:
            order = documents.argsort(dim=1, stable=True)
            ids, documents, visual = (x.gather(1, order) for x in (ids, documents, visual))
        if not ids.shape[1] or not (plain or bool(documents[:, -1].all())):
            raise ValueError(
                "a row has nothing to read: its chunk is empty, and nothing is pending"
            )
        layout = ModalityLayout.from_mask(visual)
        return self._batch(ids, documents, layout, batch.pixel_values, tokens)

    def _column(self, pending: Pending, no_tiles: Tensor) -> Batch:
        """The pending ids alone; asks the device for nothing."""
        ids = pending.ids[:, None]
        layout = ModalityLayout.all_text(self.batch, 1, ids.device)
        tokens = self.batch - pending.stopped
        return self._batch(ids, pending.real[:, None].int(), layout, no_tiles, tokens)

    def _batch(
        self,
        ids: Tensor,
        documents: Tensor,
        layout: ModalityLayout,
        pixel_values: Tensor,
        tokens: int,
    ) -> Batch:
        """A chunk at positions that go on where each row stands."""
        positions = self._counts[:, None] + (documents.cumsum(1) - 1).clamp(min=0)
        return Batch.reading(ids, positions, documents, layout, pixel_values, tokens=tokens)
