"""The run's diary: one JSON object a line, appended as things happen, for reports and studies."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Journal:
    """Appends events to ``journal.jsonl``; a line that a kill left half written is cut off.

    Args:
        path: the file.
        silent: write nothing: one process of a distributed run keeps the diary.
    """

    def __init__(self, path: Path, *, silent: bool = False) -> None:
        self.path = path
        self.silent = silent
        if not silent:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._mend()

    def write(self, event: str, **fields: Any) -> None:
        if self.silent:
            return
        line = json.dumps({"event": event, **fields}) + "\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times a part of the run, in seconds."""
        start = time.monotonic()
        yield
        self.write("part", name=name, seconds=round(time.monotonic() - start, 3))

    def events(self, event: str) -> list[dict[str, Any]]:
        """All events of a kind, oldest first."""
        if not self.path.exists():
            return []
        records = map(json.loads, self.path.read_text(encoding="utf-8").splitlines())
        return [record for record in records if record["event"] == event]

    def _mend(self) -> None:
        """Cuts off a line that a killed run left half written."""
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with self.path.open("r+b") as file:
                file.truncate(whole)
                os.fsync(file.fileno())
