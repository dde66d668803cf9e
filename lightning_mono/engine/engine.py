"""Continuous batching: requests join and leave a running batch, prompts are read in pieces."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Collection
from typing import TYPE_CHECKING

import torch

from lightning_mono.engine.errors import EngineClosed, EngineError, EngineFull
from lightning_mono.engine.reader import Reader
from lightning_mono.engine.request import Request, read_prompt
from lightning_mono.engine.rows import Row
from lightning_mono.engine.running import Running
from lightning_mono.engine.settings import EngineSettings
from lightning_mono.engine.slots import Slots
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

    Raises:
        EngineError: the slots take more memory than there is.
    """

    def __init__(self, model: MonoModel, settings: EngineSettings | None = None) -> None:
        self.model = model
        self.settings = settings = settings or EngineSettings()
        decoder, rows, capacity = model.config.decoder, settings.slots, settings.capacity
        dtype = model.embed.weight.dtype
        self._slots = Slots(decoder, rows, capacity, device=model.device, dtype=dtype)
        dynamic = decoder.rope_scaling is not None and decoder.rope_scaling.kind == "dynamic"
        unscaled = decoder.max_positions if dynamic else capacity
        self._reader = Reader(model, self._slots, settings.prefix_bytes, unscaled)
        self._running = Running(model, self._slots, rows, unscaled)
        self._reading: Row | None = None  # has the slot behind those that run
        self._stepped = True  # the last unit of work was a step
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
        ticket = Ticket(request, prompt, self._notice)
        vocabulary = self.model.config.decoder.vocab_size
        row = Row.open(ticket, self._reader.keys(prompt), vocabulary, self.model.device)
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
        count, prefix = self._counts, self._reader.prefix
        return EngineStats(
            running=len(self._running.rows),
            reading=int(self._reading is not None),
            waiting=len(self._waiting),
            finished=count["stop"] + count["length"],
            cancelled=count["cancelled"],
            failed=count["error"],
            prompt_tokens=count["prompt_tokens"],
            cached_tokens=count["cached_tokens"],
            new_tokens=count["new_tokens"],
            passes=self._reader.passes,
            steps=self._running.steps,
            slot_bytes=self._slots.nbytes,
            prefix_bytes=prefix.nbytes,
            prefix_pieces=len(prefix),
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
            if self._reading is not None and (self._stepped or not self._running.rows):
                self._stepped = False
                self._read(self._reading)
                return True
            self._stepped = True
            if not self._running.rows:
                return False
            self._answer(self._running.rows)
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

    # -- units of work ----------------------------------------------------------------------

    def _admit(self) -> None:
        with self._changed:
            if self._waiting and len(self._running.rows) < self.settings.slots:
                self._reading = self._waiting.popleft()

    def _read(self, row: Row) -> None:
        """Reads a piece of a prompt; behind the last one its row joins those that run."""
        try:
            first = self._reader.read(row, len(self._running.rows))
            id = None if first is None else int(first)
        except Exception as error:
            self._stop_reading(row, error)
            return
        if id is None:
            return
        if id < 0:
            self._stop_reading(row, EngineError(NOT_FINITE))
            return
        self._reading = None
        self._counts["prompt_tokens"] += row.length
        self._counts["cached_tokens"] += row.ticket.cached_tokens
        if self._say(row, id):
            self._running.join(row, id)

    def _stop_reading(self, row: Row, error: Exception | None = None) -> None:
        """Ends a row whose prompt was not read to its end."""
        self._reading = None
        self._end(row, error)
        self._slots.clear(len(self._running.rows))

    def _answer(self, rows: list[Row]) -> None:
        """The next id of every running row."""
        try:
            said = self._running.step()
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
        """Frees slots of running rows; the one being read closes up."""
        if not gone:
            return
        count = len(self._running.rows)
        self._running.leave(gone)
        if self._reading is not None:
            self._slots.move(count, len(self._running.rows), self._reading.length)

    def _drop_cancelled(self) -> None:
        if not self._cancelled:
            return
        self._cancelled = False
        rows = self._running.rows
        gone = [slot for slot, row in enumerate(rows) if row.ticket.cancelled]
        for slot in gone:
            self._end(rows[slot])
        self._leave(gone)
        if self._reading is not None and self._reading.ticket.cancelled:
            self._stop_reading(self._reading)
        with self._changed:
            dropped = [row for row in self._waiting if row.ticket.cancelled]
            self._waiting = deque(row for row in self._waiting if not row.ticket.cancelled)
        for row in dropped:
            self._end(row)

    def _end(self, row: Row, error: Exception | None = None) -> None:
        reason: FinishReason = "cancelled" if error is None else "error"
        self._counts[reason] += 1
        row.ticket.end(reason, error)

    def _fail_all(self, error: Exception) -> None:
        """Ends all that have a slot."""
        rows, reading = list(self._running.rows), self._reading
        self._running.rows.clear()
        self._reading = None
        for row in [*rows, *([reading] if reading else [])]:
            self._end(row, error)

    def _notice(self) -> None:
        """Something was cancelled."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()
