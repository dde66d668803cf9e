"""A tiny model, and servers of it as users start them: the command in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest
import torch
from openai import OpenAI

from lightning_mono.data.images import ImageProcessor
from lightning_mono.inference import Assistant, make_renderer
from lightning_mono.model import ExpertsConfig, MonoModel, PatchifierConfig
from lightning_mono.testing import randomize, tiny_backbone

KEY = "a key for tests"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved assistant that cuts pictures into up to three tiles."""
    backbone = tiny_backbone(max_positions=8192)
    experts = ExpertsConfig(ffn=(0, 1))
    model = MonoModel.graft(backbone, patchifier=PatchifierConfig(16, 4, 6), experts=experts)
    randomize(model, seed=1)
    images = ImageProcessor(16, max_tiles=3, thumbnail=True)
    path = tmp_path_factory.mktemp("served") / "tiny"
    renderer = make_renderer(model, backbone.tokenizer, "chatml", images)
    Assistant(model, renderer, "chatml").save(path)
    return path


@pytest.fixture(scope="session")
def alone(folder: Path) -> Iterator[Assistant]:
    """The same assistant here, asked one question at a time, on one thread as the servers are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Assistant.from_pretrained(folder, device="cpu")
    torch.set_num_threads(threads)


@dataclass
class Server:
    """A server's process, where it listens, and what it writes to standard error."""

    process: subprocess.Popen[str]
    url: str
    errors: IO[bytes]

    def client(self, *, key: str = KEY, retries: int = 0) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=retries, timeout=60)

    def stop(self, number: signal.Signals) -> int:
        """Sends a signal; returns the exit status."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=30)
        assert out == "", "it says that it is ready, and nothing else"
        return self.process.returncode

    def log(self) -> str:
        """What it wrote to standard error so far."""
        self.errors.seek(0)
        return self.errors.read().decode()


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[Server]:
    """Starts ``lightning-mono serve`` and waits for the line that says it is ready."""
    port = free_port()
    command = [sys.executable, "-m", "lightning_mono", "serve", str(folder), "--device", "cpu"]
    with tempfile.TemporaryFile() as errors:  # a pipe that nobody reads would fill up
        process = subprocess.Popen(
            [*command, "--port", str(port), *flags],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
            # Tests that run in the background ignore SIGINT, and would have the server do so.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            assert process.stdout is not None
            server = Server(process, f"http://127.0.0.1:{port}", errors)
            assert process.stdout.readline().startswith("ready: "), server.log()
            yield server
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
