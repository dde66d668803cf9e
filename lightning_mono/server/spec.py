"""The HTTP side: OpenAI's endpoints, as a spec of LitServe."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

from fastapi import HTTPException, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from litserve.specs.base import LitSpec
from litserve.utils import LitAPIStatus, ResponseBufferItem
from starlette.datastructures import UploadFile

from lightning_mono.server import pictures, remote
from lightning_mono.server.content import read_talk
from lightning_mono.server.files import PURPOSES, Files
from lightning_mono.server.jobs import (
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
from lightning_mono.server.protocol import ChatRequest, File, Image, read_request
from lightning_mono.server.refusal import Refusal
from lightning_mono.server.replies import Reply, failure
from lightning_mono.server.settings import Settings

Result = TypeVar("Result")


class ChatSpec(LitSpec):
    """Takes requests in, passes them on to LitServe's worker, and says what comes back.

    LitServe's own ``OpenAISpec`` has no uploads and no seed, lets no hang-up reach the worker, and
    says "stop" at the end of answers that were cut off. This one keeps its transport: LitServe's
    request queue, response buffer and streamer.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.api_path = "/v1/chat/completions"
        self.settings = settings
        self.files = Files(settings.limits.files_bytes, settings.limits.file_seconds)
        self.started = int(time.time())
        self._taken = 0  # requests that wait or are being answered
        self._sender: ThreadPoolExecutor | None = None
        self.add_endpoint(self.api_path, self.chat, ["POST"])
        self.add_endpoint("/stats", self.stats, ["GET"])
        self.add_endpoint("/v1/models", self.models, ["GET"])
        self.add_endpoint("/v1/models/{name:path}", self.model, ["GET"])
        self.add_endpoint("/v1/files", self.upload, ["POST"])
        self.add_endpoint("/v1/files/{id}", self.file, ["GET"])
        self.add_endpoint("/v1/files/{id}", self.delete_file, ["DELETE"])

    @property
    def stream(self) -> bool:
        """What comes from the worker comes in pieces, whatever the client asked for."""
        return True

    async def stats(self) -> Response:
        """What the engine is doing and has done; not part of OpenAI's API."""
        async with aclosing(self._said(Count(uuid.uuid4().hex))) as said:
            async for event in said:
                if isinstance(event, Counted):
                    return JSONResponse(event.counts)
        raise HTTPException(500, "the engine said nothing")

    # -- models and files ---------------------------------------------------------------------

    async def models(self) -> Response:
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, name: str) -> Response:
        self._check_model(name)
        return JSONResponse(self._model())

    async def upload(self, request: Request) -> Response:
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise Refusal("send a multipart/form-data body with file and purpose", status=415)
        async with request.form(max_files=1, max_fields=8) as form:
            file, purpose = form.get("file"), form.get("purpose")
            if not isinstance(file, UploadFile):
                raise Refusal("file is missing", param="file")
            if purpose not in PURPOSES:
                raise Refusal(f"purpose must be one of {', '.join(PURPOSES)}", param="purpose")
            data, filename = await file.read(), file.filename or "upload"
        pictures.check(data, self.settings.limits, "file")
        return JSONResponse(self.files.add(data, filename, str(purpose)).entry())

    async def file(self, id: str) -> Response:
        return JSONResponse(self.files.get(id, "file_id").entry())

    async def delete_file(self, id: str) -> Response:
        self.files.delete(id, "file_id")
        return JSONResponse({"id": id, "object": "file", "deleted": True})

    def _model(self) -> dict[str, Any]:
        owner = "lightning-mono"
        return {
            "id": self.settings.name,
            "object": "model",
            "created": self.started,
            "owned_by": owner,
        }

    def _check_model(self, name: str) -> None:
        if name != self.settings.name:
            raise Refusal(
                f"model {name[:80]!r} is not served here; {self.settings.name!r} is",
                param="model",
                code="model_not_found",
                status=404,
            )

    # -- chat ---------------------------------------------------------------------------------

    async def chat(self, request: Request) -> Response:
        # A web page may not send this type to another origin unasked, as it may plain text.
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise Refusal("send the request as Content-Type: application/json", status=415)
        self._check_place()  # before anything of it is kept
        asked = await asyncio.to_thread(read_request, await request.body())
        self._check_model(asked.model)
        id = uuid.uuid4().hex
        options = asked.stream_options
        reply = Reply(id, asked.model, usage=bool(options and options.include_usage))
        events = self._events(id, asked)
        await _unless_gone(request, anext(events))  # accepted, or refused with a status of its own
        if asked.stream:
            chunks = _chunks(reply, events)
            headers = {"Cache-Control": "no-cache"}
            return StreamingResponse(chunks, media_type="text/event-stream", headers=headers)
        return JSONResponse(await _unless_gone(request, _whole(reply, events)))

    async def _events(self, id: str, asked: ChatRequest) -> AsyncGenerator[Event, None]:
        with self._place():
            job = await self._job(id, asked)
            async with aclosing(self._said(job)) as said:
                async for event in said:
                    yield event

    async def _said(self, message: Job | Count) -> AsyncGenerator[Event, None]:
        """What the worker says to a message; it is told when nobody listens any more."""
        item = ResponseBufferItem(event=asyncio.Event(), response_queue=deque())
        self.response_buffer[message.id] = item
        over = False
        try:
            await self._send(message)
            said = self.data_streamer(item.response_queue, item.event, send_status=True)
            async for event, status in said:
                over = status == LitAPIStatus.ERROR or isinstance(event, Refused)
                if isinstance(event, Refused):
                    raise HTTPException(event.status, event.detail)
                if over:
                    raise HTTPException(500, "the answer failed; the server's log says why")
                yield event
            over = True
        finally:
            del self.response_buffer[message.id]
            if not over:
                self._send(Cancel(message.id))

    async def _job(self, id: str, asked: ChatRequest) -> Job:
        limits = self.settings.limits
        if asked.new_tokens is not None and asked.new_tokens > limits.new_tokens:
            name = asked.new_tokens_field
            raise Refusal(f"{name}: {limits.new_tokens} at most", param=name)
        talk = await read_talk(asked, self._fetch, limits.images)
        held = sum(len(data) for data in talk.images)
        if held > limits.body_bytes:  # of uploads, a small request may name many
            message = f"messages: images of {held} bytes; {limits.body_bytes} at most"
            raise Refusal(message, param="messages", code="image_too_large", status=413)
        return Job(
            id=id,
            turns=talk.turns,
            fields=talk.fields,
            system=talk.system,
            max_new_tokens=asked.new_tokens,
            stop=tuple(asked.stop or ()),
            seed=asked.seed,
            temperature=asked.temperature or 0.0,
            top_p=1.0 if asked.top_p is None else asked.top_p,
            top_k=asked.top_k or 0,
            repetition_penalty=asked.repetition_penalty or 1.0,
        )

    async def _fetch(self, part: Image | File, field: str) -> bytes:
        """The picture of a part, its size checked."""
        limits = self.settings.limits
        if isinstance(part, File):
            return self.files.get(part.file.file_id, f"{field}.file.file_id").data
        url, field = part.image_url.url, f"{field}.image_url.url"
        scheme = url[:8].partition(":")[0].lower()
        if scheme == "data":
            return await asyncio.to_thread(pictures.from_data_url, url, limits, field)
        if scheme not in ("http", "https"):
            raise Refusal(f"{field}: not a data:image/...;base64,... URL", param=field)
        if not self.settings.allow_remote:
            raise Refusal(
                f"{field}: addresses are not fetched here; send a data URL or upload the picture",
                param=field,
                code="invalid_image_url",
            )
        data = await remote.fetch(url, limits.image_bytes, field)
        pictures.check(data, limits, field)
        return data

    def end_answers(self) -> None:
        """Breaks off what is still being answered."""
        detail = {"message": "the server is shutting down", "param": None, "code": "shutdown"}
        for item in self.response_buffer.values():
            item.response_queue.appendleft((Refused(503, detail), LitAPIStatus.OK))
            item.event.set()

    def _check_place(self) -> None:
        limits = self.settings.limits
        if self._taken >= limits.slots + limits.queue:
            raise Refusal(
                f"{self._taken} requests wait or are being answered; try again later",
                code="queue_full",
                status=429,
            )

    @contextmanager
    def _place(self) -> Iterator[None]:
        self._check_place()
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    def _send(self, message: Message) -> asyncio.Future[None]:
        """Puts a message into LitServe's request queue, each behind those that came before.

        A put waits for another process, so the event loop must not; and a hang-up must not overtake
        what it cancels, so one thread does it all.
        """
        if self._sender is None:  # not earlier: the worker gets a copy of this object
            self._sender = ThreadPoolExecutor(1, thread_name_prefix="sender")
        item = (self.response_queue_id, message.id, time.monotonic(), message)
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._sender, self.request_queue.put, item)


async def _whole(reply: Reply, events: AsyncGenerator[Event, None]) -> dict[str, Any]:
    text = []
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Piece):
                text.append(event.text)
            elif isinstance(event, Ended):
                return reply.whole("".join(text), event)
    raise HTTPException(500, "the answer broke off")


async def _chunks(reply: Reply, events: AsyncGenerator[Event, None]) -> AsyncGenerator[str, None]:
    async with aclosing(events):
        yield reply.first()
        try:
            async for event in events:
                if isinstance(event, Piece):
                    yield reply.piece(event.text)
                elif isinstance(event, Ended):
                    yield reply.last(event)
        except HTTPException as error:
            yield failure(error)


async def _unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """Awaits work, and gives it up when the client hangs up."""
    doing = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({doing, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise HTTPException(499, "the client hung up")
        return doing.result()
    finally:
        gone.cancel()
        doing.cancel()
        await asyncio.gather(gone, doing, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
