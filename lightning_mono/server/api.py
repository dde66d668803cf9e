"""The model's side: what LitServe's worker process runs."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import litserve as ls
from fastapi import Request

from lightning_mono.errors import UserError
from lightning_mono.server.jobs import (
    Accepted,
    Cancel,
    Count,
    Counted,
    Ended,
    Event,
    Job,
    Message,
    Piece,
    Refused,
)
from lightning_mono.server.parent import leave_to_parent
from lightning_mono.server.refusal import Refusal
from lightning_mono.server.settings import Settings
from lightning_mono.server.spec import ChatSpec

if TYPE_CHECKING:
    from lightning_mono.engine import Ticket

    Work = tuple[Job, Ticket] | Refusal | Count | None

CONTEXT = 4096
"""Tokens of a request, where neither settings nor model say less."""
OPEN = ("/health",)
"""Paths that need no key."""


class ChatAPI(ls.LitAPI):
    """Answers jobs with an engine that batches them itself: one worker, many at a time.

    LitServe's asynchronous loop makes a task of every job, and the engine's tickets are awaited in
    it. A cancellation comes the same way: as a job that ends another.

    Args:
        settings: of the server.
        failed: is told in one line why the model cannot be loaded.
    """

    def __init__(self, settings: Settings, failed: Connection) -> None:
        self.chat = ChatSpec(settings)
        super().__init__(enable_async=True, spec=self.chat)
        self.settings = settings
        self._failed = failed

    # -- in the process that speaks HTTP --------------------------------------------------------

    async def authorize(self, request: Request) -> None:
        """Lets those in who know the key; a dependency of every endpoint."""
        key = self.settings.api_key
        if key is None or request.url.path in OPEN:
            return
        scheme, _, said = request.headers.get("authorization", "").partition(" ")
        known = hmac.compare_digest(said.strip().encode(), key.encode())
        if scheme.lower() != "bearer" or not known:
            raise Refusal(
                "wrong or missing API key; send Authorization: Bearer KEY",
                code="invalid_api_key",
                status=401,
            )

    # -- in the worker --------------------------------------------------------------------------

    def setup(self, device: str) -> None:
        """Loads the model, on the device of the settings; LitServe's own choice is not used."""
        leave_to_parent()
        try:
            self._load()
        except UserError as error:
            self._failed.send(str(error))
            logging.getLogger("litserve").setLevel(logging.CRITICAL)  # the line says it all
            raise

    def _load(self) -> None:
        import torch

        from lightning_mono.engine import Engine, EngineSettings
        from lightning_mono.inference import Assistant

        settings, limits = self.settings, self.settings.limits
        if settings.device is not None:
            _check_device(settings.device)
        dtype = getattr(torch, settings.dtype) if settings.dtype else None
        self.assistant = Assistant.from_pretrained(
            settings.checkpoint,
            device=settings.device,
            dtype=dtype,
            system=settings.system,
            quantize=settings.quantize,
        )
        model = self.assistant.model
        context = settings.context or min(CONTEXT, model.config.decoder.max_positions)
        self.engine = Engine(
            model,
            EngineSettings(
                slots=limits.slots,
                capacity=context,
                queue=limits.slots + limits.queue,  # who may wait is decided where they come in
                prefix_bytes=settings.prefix_bytes,
            ),
        ).start()
        self._tickets: dict[str, Ticket | None] = {}  # of jobs that somebody waits for

    async def decode_request(self, request: Message) -> Work:
        """Hands a job to the engine, or takes back the one that a cancellation names."""
        if isinstance(request, Count):
            return request
        if isinstance(request, Cancel):
            ticket = self._tickets.pop(request.id, None)
            if ticket is not None:
                ticket.cancel()
            return None
        self._tickets[request.id] = None
        try:
            ticket = await asyncio.to_thread(self._submit, request)
        except Exception as error:
            self._tickets.pop(request.id, None)
            if isinstance(error, Refusal):
                return error
            raise
        if request.id in self._tickets:
            self._tickets[request.id] = ticket
        else:
            ticket.cancel()
        return request, ticket

    async def predict(self, x: Work) -> AsyncIterator[Event]:
        """Yields what there is to say: the events of an answer, why there is none, or counts."""
        if isinstance(x, Refusal):
            yield Refused(x.status_code, x.said)
        elif isinstance(x, Count):
            yield Counted(asdict(self.engine.stats()))
        elif x is not None:
            async for event in self._answer(*x):
                yield event

    async def encode_response(self, output: AsyncIterator[Event]) -> AsyncIterator[Event]:
        """Events cross over as they are."""
        async for event in output:
            yield event

    def _submit(self, job: Job) -> Ticket:
        from lightning_mono.server.prompts import submit

        return submit(job, self.assistant, self.engine, self.settings.limits)

    async def _answer(self, job: Job, ticket: Ticket) -> AsyncIterator[Event]:
        answer = self.assistant.new_answer(job.stop)
        text, read = "", 0
        try:
            yield Accepted()
            async for id in ticket:
                text, read = text + answer.add(id), read + 1
                if answer.done:
                    break
                if text and read == ticket.new_tokens:  # else more is there already: say it at once
                    yield Piece(text)
                    text = ""
        finally:
            ticket.cancel()  # of stop strings the engine knows nothing
            self._tickets.pop(job.id, None)
        text += answer.rest()
        if text:
            yield Piece(text)
        new = len(answer.ids) + (answer.ended_by is not None)
        reason = "stop" if answer.done else "length"
        yield Ended(reason, ticket.prompt_tokens, ticket.cached_tokens, new)


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device}: {str(error).splitlines()[0]}") from error
