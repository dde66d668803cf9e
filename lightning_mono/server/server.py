"""Starting and stopping: LitServe's processes, one line when they are ready, and a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import litserve as ls
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from lightning_mono.errors import UserError
from lightning_mono.server.api import ChatAPI
from lightning_mono.server.parent import leave_to_parent
from lightning_mono.server.refusal import refuse
from lightning_mono.server.settings import Settings

GRACE = 5
"""Seconds that answers get to end when the server is told to stop; then they are cut off."""
MARGIN = 3
"""Seconds beyond, until what has not ended then is killed."""


class ServerError(UserError):
    """A server that cannot start, or could not go on."""


class ChatServer(ls.LitServer):
    """LitServe with errors in OpenAI's words, which says when it is ready."""

    def __init__(self, api: ChatAPI) -> None:
        limits = api.settings.limits
        super().__init__(
            api,
            accelerator="cpu",  # the worker chooses its own device
            devices=1,
            timeout=False,
            max_payload_size=limits.body_bytes,
            model_metadata={"model": api.settings.name},
            disable_openapi_url=True,
        )
        self.settings, self.spec = api.settings, api.chat
        self.processes: list[BaseProcess] = []
        self.died = False
        self.uvicorn_graceful_timeout = GRACE + MARGIN
        self.app.add_exception_handler(HTTPException, refuse)
        self.app.add_exception_handler(ClientDisconnect, refuse)
        self.app.add_exception_handler(Exception, refuse)

    def launch_inference_worker(self, lit_api: ls.LitAPI) -> list[BaseProcess]:
        workers: list[BaseProcess] = super().launch_inference_worker(lit_api)
        self.processes += workers
        return workers

    def _start_server(self, *args: Any, **kwargs: Any) -> dict[int, BaseProcess]:
        servers: dict[int, BaseProcess] = super()._start_server(*args, **kwargs)
        self.processes += servers.values()
        return servers

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Runs in the process that speaks HTTP."""
        leave_to_parent()
        self._end_answers_on_sigterm()
        async with super().lifespan(app):
            announced = asyncio.create_task(self._announce())
            yield
            announced.cancel()

    def _end_answers_on_sigterm(self) -> None:
        """Uvicorn waits for answers, and would cut off those that take too long without a word."""
        loop, waits = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)

        def end(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(loop.call_later, GRACE, self.spec.end_answers)
            if callable(waits):
                waits(number, frame)

        signal.signal(signal.SIGTERM, end)

    async def _announce(self) -> None:
        host, port = self.settings.host, self.settings.port
        here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        while True:  # until the socket that LitServe has bound is listened on
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(here, port)
                writer.close()
                break
            await asyncio.sleep(0.02)
        shown = f"[{host}]" if ":" in host else host
        slots = self.settings.limits.slots
        print(
            f"ready: {self.settings.name} at http://{shown}:{port}/v1, {slots} at a time",
            flush=True,
        )


def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        ServerError: the model cannot be loaded, the address is taken, or a process died.
    """
    _check_address(settings.host, settings.port)
    failed, tell = multiprocessing.Pipe(duplex=False)
    server = ChatServer(ChatAPI(settings, tell))
    _watch(server)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            server.run(
                host=settings.host,
                port=settings.port,
                num_api_servers=1,  # uploads are kept in its memory
                api_server_worker_type="process",
                log_level="warning",
                generate_client_file=False,
            )
    except RuntimeError:  # LitServe's, of a worker that could not be set up
        server.died = True
    finally:
        for process in server.processes:  # what was stopped before it ran is still there
            process.terminate()
    if failed.poll():
        raise ServerError(failed.recv())
    if server.died:
        raise ServerError("a process of the server died; its log says why")


def _check_address(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise ServerError(f"cannot listen on {host} port {port}: {reason}") from error


def _watch(server: ChatServer) -> None:
    """Has SIGTERM end the server as Ctrl-C does, and the death of one process all of them.

    LitServe would wait for ever for a worker that is killed while it loads its model, and go on
    without the process that speaks HTTP. Processes that it forks from this one inherit the
    handlers, which are not for them: they end when this one tells them to.
    """
    main = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != main:
            return
        if number == signal.SIGCHLD and all(one.is_alive() for one in server.processes):
            return
        for one in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(one, signal.SIG_IGN if one != signal.SIGCHLD else signal.SIG_DFL)
        server.uvicorn_graceful_timeout = GRACE + 2 * MARGIN  # of uvicorn's process, from here on
        server.died = number == signal.SIGCHLD
        raise KeyboardInterrupt  # what LitServe stops for without asking its queues, which may hang

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGCHLD, end)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # else it was started in the background
        signal.signal(signal.SIGINT, end)
