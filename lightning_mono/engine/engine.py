"""Continuous batching: requests join and leave a running batch, prompts are read in pieces."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_mono.engine.batches import Columns, piece_batch, piece_mask
from lightning_mono.engine.errors import EngineClosed, EngineError, EngineFull
from lightning_mono.engine.prefix import PrefixCache, keys_of
from lightning_mono.engine.request import Prompt, Request, read_prompt
from lightning_mono.engine.rows import Row, pick
from lightning_mono.engine.settings import EngineSettings
from lightning_mono.engine.slots import FirstRows, RowView, Slots
from lightning_mono.engine.stats import EngineStats
from lightning_mono.engine.ticket import FinishReason, Ticket

if TYPE_CHECKING:
    from lightning_mono.model.mono import MonoModel

NOT_FINITE = "the model's logits are not finite; its weights or the pixels hold NaN or infinity"


class Engine:
    """Answers many requests at once with one model.

    Each gets the answer that it would get alone from ``model.session()``. Work is done by
    :meth:`step`, a unit at a time: called by whoever drives the engine, or by its own thread
    between :meth:`start` and :meth:`close`. All other methods may be called from any thread.

    Args:
        model: the model, on the device it is to run on; its weights must stay as they are.
        settings: how much is taken on.
    """

    def __init__(self, model: MonoModel, settings: EngineSettings | None = None) -> None:
        self.model = model
        self.settings = settings = settings or EngineSettings()
        decoder, device = model.config.decoder, model.device
        self._slots = Slots(
            decoder,
            settings.slots,
            settings.capacity,
            device=device,
            dtype=model.embed.weight.dtype,
        )
        self._prefix = PrefixCache(settings.prefix_bytes)
        dynamic = decoder.rope_scaling is not None and decoder.rope_scaling.kind == "dynamic"
        # Beyond so many tokens, rotary frequencies depend on how many are in view.
        self._unscaled = decoder.max_positions if dynamic else settings.capacity
        patchifier = model.config.patchifier
        self._columns = Columns(patchifier.image_size if patchifier else 0, device)
        self._places = torch.arange(settings.capacity, device=device)
        self._rows: list[Row] = []  # running: row i has slot i
        self._reading: Row | None = None  # has the slot behind them
        self._lengths = torch.zeros(settings.slots, dtype=torch.int64, device=device)
        self._last = torch.zeros(settings.slots, dtype=torch.int64, device=device)
        self._answered = True  # the last unit of work was a step of the running rows
        self._counts: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._waiting: deque[Row] = deque()
        self._cancelled = self._closed = False
        self._thread: threading.Thread | None = None

    # -- for whoever asks -------------------------------------------------------------------

    def submit(self, request: Request) -> Ticket:
        """Takes a request on.

        Raises:
            EngineFull: as many requests wait as may.
            EngineClosed: the engine was closed.
            RequestTooLong: prompt and answer do not fit a slot.
            RequestRefused: the request can not be answered as it is.
        """
        prompt = read_prompt(request, self.model, self.settings)
        keys = list(keys_of(prompt, self._view(prompt))) if self.settings.prefix_bytes else []
        ticket = Ticket(request, prompt, self._notice)
        vocabulary = self.model.config.decoder.vocab_size
        row = Row.open(ticket, keys, vocabulary, self.model.device)
        with self._changed:
            if self._closed:
                raise EngineClosed("the engine was closed; it takes no requests")
            if len(self._waiting) >= self.settings.queue:
                raise EngineFull(f"{len(self._waiting)} requests wait already; try again later")
            self._waiting.append(row)
            self._changed.notify_all()
        return ticket

    def stats(self) -> EngineStats:
        """What the engine is doing and has done."""
        count = self._counts
        return EngineStats(
            running=len(self._rows),
            reading=int(self._reading is not None),
            waiting=len(self._waiting),
            finished=count["stop"] + count["length"],
            cancelled=count["cancelled"],
            failed=count["error"],
            prompt_tokens=count["prompt_tokens"],
            cached_tokens=count["cached_tokens"],
            new_tokens=count["new_tokens"],
            passes=count["passes"],
            steps=count["steps"],
            slot_bytes=self._slots.nbytes,
            prefix_bytes=self._prefix.nbytes,
            prefix_pieces=len(self._prefix),
        )

    # -- running ----------------------------------------------------------------------------

    def start(self) -> Engine:
        """Has a thread of its own do the work, until :meth:`close`."""
        if self._thread is not None or self._closed:
            raise EngineError("an engine can be started once")
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Ends all that is not answered yet with :class:`EngineClosed`; takes no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        error = EngineClosed("the engine was closed before the answer was whole")
        self._fail_all(error)
        while self._waiting:
            self._end(self._waiting.popleft(), error)

    def __enter__(self) -> Engine:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @torch.inference_mode()
    def step(self) -> bool:
        """One unit of work: a piece of a prompt, or the next id of all running rows, in turns.

        What goes wrong ends the requests it concerns and is not raised here.

        Returns:
            Whether there was anything to do.
        """
        try:
            self._drop_cancelled()
            if self._reading is None:
                self._admit()
            if self._reading is not None and (self._answered or not self._rows):
                self._answered = False
                self._read(self._reading)
                return True
            self._answered = True
            if not self._rows:
                return False
            self._answer()
        except Exception as error:
            self._fail_all(error)
        return True

    def _run(self) -> None:
        while not self._closed:
            if not self.step():
                with self._changed:
                    self._changed.wait_for(
                        lambda: self._closed or self._cancelled or bool(self._waiting)
                    )

    # -- prompts ----------------------------------------------------------------------------

    def _admit(self) -> None:
        with self._changed:
            if self._waiting and len(self._rows) < self.settings.slots:
                self._reading = self._waiting.popleft()

    def _read(self, row: Row) -> None:
        """Reads one piece, behind those that are known; the last one gives the first id."""
        try:
            first = self._read_piece(row)
            id = None if first is None else int(first)
        except Exception as error:
            self._stop_reading(row, error)
            return
        if first is None or id is None:
            return
        if id < 0:
            self._stop_reading(row, EngineError(NOT_FINITE))
            return
        self._reading = None
        self._counts["prompt_tokens"] += row.length
        self._counts["cached_tokens"] += row.ticket.cached_tokens
        self._prefix.touch(row.keys)
        if self._say(row, id):
            slot = len(self._rows)
            self._rows.append(row)
            self._lengths[slot] = row.length
            self._last[slot] = first[0]

    def _read_piece(self, row: Row) -> Tensor | None:
        """The first id, (1,) int64, behind the last piece, which is read even where it is known."""
        prompt, slot = row.ticket.prompt, len(self._rows)
        last = len(prompt.pieces) - 1
        while row.keys and row.piece < last and (known := self._prefix.get(row.keys[row.piece])):
            piece = prompt.pieces[row.piece]
            self._slots.put(slot, piece.start, *known)
            row.piece, row.length = row.piece + 1, piece.end
            row.ticket.cached_tokens += piece.end - piece.start
        piece, device = prompt.pieces[row.piece], self.model.device
        tokens = piece.end - piece.start
        view = self._view(prompt) or piece.end
        batch = piece_batch(prompt, piece, device)
        hidden = self.model.hidden(
            batch,
            mask=piece_mask(piece, device),
            cache=RowView(self._slots, slot, piece.start, length=view - tokens),
            wanted=batch.wanted,
        )
        self._counts["passes"] += 1
        row.length = piece.end
        if row.keys and row.keys[row.piece] not in self._prefix:
            self._prefix.put(row.keys[row.piece], *self._slots.read(slot, piece.start, piece.end))
        row.piece += 1
        return None if row.piece <= last else pick(self.model.logits(hidden[:, -1]).float(), [row])

    def _view(self, prompt: Prompt) -> int:
        """Tokens on which the prompt's rotary frequencies depend; 0 where they do not."""
        return len(prompt.ids) if len(prompt.ids) > self._unscaled else 0

    # -- answers ----------------------------------------------------------------------------

    def _answer(self) -> None:
        """The next id of every running row."""
        rows = self._rows
        try:
            said = self._next(rows)
        except Exception as error:
            for slot, row in enumerate(rows):
                self._end(row, error)
                self._slots.clear(slot)
            self._leave(range(len(rows)))
            return
        gone = []
        for slot, (row, id) in enumerate(zip(rows, said, strict=True)):
            if id < 0:
                self._end(row, EngineError(NOT_FINITE))
                self._slots.clear(slot)
                gone.append(slot)
            elif not self._say(row, id):
                gone.append(slot)
        self._leave(gone)

    def _next(self, rows: list[Row]) -> list[int]:
        count = len(rows)
        lengths, last = self._lengths[:count, None], self._last[:count]
        longest = max(row.length for row in rows)
        batch = self._columns.batch(last[:, None], lengths, packed=longest >= self._unscaled)
        mask = None
        if any(row.length != longest for row in rows):
            mask = (self._places[: longest + 1] <= lengths)[:, None, None]
        cache = FirstRows(self._slots, lengths[:, 0], longest)
        words = self.model.embed(batch.input_ids)  # no pixels: the patchifier is not called
        hidden = self.model.hidden(batch, mask=mask, cache=cache, embeddings=words)
        ids = pick(self.model.logits(hidden[:, -1]).float(), rows)
        last.copy_(ids)
        lengths += 1
        for row in rows:
            row.length += 1
        self._counts["steps"] += 1
        return ids.tolist()

    def _say(self, row: Row, id: int) -> bool:
        """Hands an id to whoever asked; whether the row goes on."""
        row.ticket.add(id)
        self._counts["new_tokens"] += 1
        reason = row.ticket.finish_reason
        if reason is not None:
            self._counts[reason] += 1
        return reason is None

    # -- leaving ----------------------------------------------------------------------------

    def _leave(self, gone: Collection[int]) -> None:
        """Frees slots; the last running rows fill the gaps, and the one being read closes up."""
        if not gone:
            return
        count = len(self._rows)
        left = count - len(gone)
        last = (slot for slot in reversed(range(count)) if slot not in gone)
        for gap in sorted(slot for slot in gone if slot < left):
            source = next(last)
            row = self._rows[gap] = self._rows[source]
            self._slots.move(source, gap, row.length)
            self._lengths[gap], self._last[gap] = self._lengths[source], self._last[source]
        del self._rows[left:]
        if self._reading is not None:
            self._slots.move(count, left, self._reading.length)

    def _drop_cancelled(self) -> None:
        if not self._cancelled:
            return
        self._cancelled = False
        gone = [slot for slot, row in enumerate(self._rows) if row.ticket.cancelled]
        for slot in gone:
            self._end(self._rows[slot])
        self._leave(gone)
        if self._reading is not None and self._reading.ticket.cancelled:
            self._stop_reading(self._reading)
        with self._changed:
            dropped = [row for row in self._waiting if row.ticket.cancelled]
            self._waiting = deque(row for row in self._waiting if not row.ticket.cancelled)
        for row in dropped:
            self._end(row)

    def _stop_reading(self, row: Row, error: Exception | None = None) -> None:
        """Ends a row whose prompt was not read to its end."""
        self._reading = None
        self._end(row, error)
        self._slots.clear(len(self._rows))

    def _end(self, row: Row, error: Exception | None = None) -> None:
        reason: FinishReason = "cancelled" if error is None else "error"
        self._counts[reason] += 1
        row.ticket.end(reason, error)

    def _fail_all(self, error: Exception) -> None:
        """Ends all that have a slot."""
        rows = [*self._rows, self._reading] if self._reading else self._rows
        self._rows, self._reading = [], None
        for row in rows:
            self._end(row, error)

    def _notice(self) -> None:
        """Something was cancelled."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()
