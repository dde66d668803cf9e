"""A submitted request, as whoever asked sees it: its ids as they come, from any thread."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Literal

from lightning_mono.engine.request import Prompt, Request

LOG = logging.getLogger(__name__)

FinishReason = Literal["stop", "length", "cancelled", "error"]


class Ticket:
    """The answer to a request as it grows.

    Iterating gives the new ids as they come, the stop id included where one ended the answer; any
    number of threads or asyncio tasks may do so, each from the start. An answer that was cancelled
    just ends; one that failed raises what went wrong.

    Attributes:
        request: what was asked.
        prompt: the same, checked and cut.
        ids: the new ids so far.
        finish_reason: None as long as more may come.
        error: what went wrong, where something did.
        cached_tokens: tokens of the prompt that were found in the prefix cache.
        submitted, first_token, finished: when, in seconds of ``time.monotonic``; None before.
    """

    def __init__(self, request: Request, prompt: Prompt, wake: Callable[[], None]) -> None:
        self.request, self.prompt = request, prompt
        self.ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.error: Exception | None = None
        self.cached_tokens = 0
        self.submitted = time.monotonic()
        self.first_token: float | None = None
        self.finished: float | None = None
        self.cancelled = False
        self._wake = wake
        self._changed = threading.Condition()
        self._listeners: list[Callable[[], None]] = []

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt.ids)

    @property
    def new_tokens(self) -> int:
        return len(self.ids)

    # -- for whoever asked ------------------------------------------------------------------

    def __iter__(self) -> Iterator[int]:
        at = 0
        while True:
            with self._changed:
                while len(self.ids) == at and self.finish_reason is None:
                    self._changed.wait()
                new, over = self.ids[at:], self.finish_reason is not None
            yield from new
            at += len(new)
            if over:
                break
        self._raise()

    async def __aiter__(self) -> AsyncIterator[int]:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def listener() -> None:
            with suppress(RuntimeError):  # the loop was closed meanwhile: nobody listens
                loop.call_soon_threadsafe(changed.set)

        self.add_listener(listener)
        try:
            at = 0
            while True:
                changed.clear()
                over = self.finish_reason is not None
                new = self.ids[at:]
                for id in new:
                    yield id
                at += len(new)
                if over:
                    break
                if not new:
                    await changed.wait()
        finally:
            self.remove_listener(listener)
        self._raise()

    def result(self) -> list[int]:
        """Waits for the whole answer."""
        return list(self)

    def cancel(self) -> None:
        """Gives the answer up: its slot is free before the next step."""
        self.cancelled = True
        self._wake()

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Has ``listener`` called at every new id and at the end, in the engine's thread.

        It must return at once. What comes before it was added is in ``ids``.
        """
        with self._changed:
            self._listeners.append(listener)

    def remove_listener(self, listener: Callable[[], None]) -> None:
        with self._changed:
            self._listeners.remove(listener)

    # -- for the engine ---------------------------------------------------------------------

    def add(self, id: int) -> None:
        """Appends a new id; ends the answer where it stops or is as long as may be."""
        if self.first_token is None:
            self.first_token = time.monotonic()
        reason: FinishReason | None = None
        if id in self.request.stop_ids:
            reason = "stop"
        elif len(self.ids) + 1 == self.request.max_new_tokens:
            reason = "length"
        self._change(reason, id=id)

    def end(self, reason: FinishReason, error: Exception | None = None) -> None:
        """Ends the answer as it is."""
        if self.finish_reason is None:
            self._change(reason, error=error)

    def _change(
        self, reason: FinishReason | None, *, id: int | None = None, error: Exception | None = None
    ) -> None:
        with self._changed:
            if id is not None:
                self.ids.append(id)
            if reason is not None:
                self.error, self.finished = error, time.monotonic()
                self.finish_reason = reason
            self._changed.notify_all()
            listeners = list(self._listeners)
        for listener in listeners:
            try:
                listener()
            except Exception:  # one who listens badly must not end the others' answers
                LOG.exception("a listener failed")

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error
