"""Answers on disk: written as they come, found again by what they depend on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from filelock import FileLock, Timeout

from lightning_mono.benchmarks.benchmark import Benchmark
from lightning_mono.checkpoints.atomic import replacing
from lightning_mono.errors import DataError

if TYPE_CHECKING:
    from lightning_mono.inference import Assistant

FORMAT = 1  # of keys and files; a change makes every model be asked anew


def model_digest(assistant: Assistant) -> str:
    """SHA-256 of a model's weights and settings, its tokenizer, chat and way of cutting images."""
    whole = hashlib.sha256(repr(assistant.model.config).encode())
    whole.update(assistant.renderer.fingerprint.encode())
    for name, tensor in sorted(assistant.model.state_dict().items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        data = tensor.detach().cpu().contiguous().flatten()
        whole.update(memoryview(data.view(torch.uint8).numpy()) if data.numel() else b"")
    return whole.hexdigest()


def settings_of(model: str, benchmark: Benchmark, batch_size: int) -> dict[str, object]:
    """Return all that answers depend on.

    The size of batches is part of it: sums over padded rows may differ in their last bits.
    """
    return {
        "format": FORMAT,
        "benchmark": benchmark.name,
        "benchmark_digest": benchmark.digest,
        "model_digest": model,
        "prompt": benchmark.prompt.template,
        "max_new_tokens": benchmark.prompt.max_new_tokens,
        "batch_size": batch_size,
    }


class Answers:
    """The answers of one model to one benchmark, in a folder that is named by what they depend on.

    Each process appends to a file of its own, `answers-<rank>.jsonl`, a batch at a time.

    Args:
        out: where folders of answers are.
        settings: of `settings_of`; they are written beside the answers.
    """

    def __init__(self, out: Path, settings: Mapping[str, object]) -> None:
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        self.folder = out / f"{settings['benchmark']}-{key}"
        self.settings = settings

    @contextmanager
    def opened(self, *, fresh: bool = False) -> Iterator[dict[str, str]]:
        """Give the answers that are there, by id, and keep other runs out in the meantime.

        Args:
            fresh: delete them first.

        Raises:
            DataError: another process asks the same, or a file is damaged.
        """
        with replacing(self.folder / "asked.json") as temporary:
            temporary.write_text(json.dumps(self.settings, indent=2) + "\n", encoding="utf-8")
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise DataError(
                f"{self.folder} is being written by another process: wait for it, or write "
                "elsewhere with --out"
            ) from None
        try:
            for file in self._files():
                if fresh:
                    file.unlink()
            yield {name: said for file in self._files() for name, said in _read(file)}
        finally:
            lock.release()

    def append(self, rank: int, said: Mapping[str, str]) -> None:
        """Write the answers of a batch, and wait until they are on disk."""
        lines = (
            json.dumps({"id": name, "prediction": text}, ensure_ascii=False) + "\n"
            for name, text in said.items()
        )
        try:
            with (self.folder / f"answers-{rank}.jsonl").open("a", encoding="utf-8") as file:
                file.write("".join(lines))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DataError(
                f"cannot write to {self.folder}: {error.strerror}; make room and run it again, "
                "it goes on where it stopped"
            ) from error

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("answers-*.jsonl"))


def _read(path: Path) -> Iterator[tuple[str, str]]:
    """(id, answer) of every whole line; cuts off half a line that a kill has left."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            record = json.loads(line)
            yield str(record["id"]), str(record["prediction"])
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{path}, line {number}: is no answer; delete the line, or ask anew with --fresh"
            ) from error
