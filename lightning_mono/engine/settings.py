"""How much an engine takes on at a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineSettings:
    """Bounds of an engine's memory, all of which is taken when it is made or known beforehand.

    Attributes:
        slots: requests that are answered at the same time; the others wait.
        capacity: tokens that a request may have, prompt and answer together. Keys and values of
            slots x capacity tokens are allocated at once.
        queue: requests that may wait.
        chunk: prompt tokens that are read in one pass; between two passes, answers under way get
            their next token. It bounds what a long prompt takes beside its keys and values.
        block: a prompt's first passes read so many tokens, and the next ones as many as all before
            them, up to ``chunk``. Prompts that begin alike share whole passes.
        prefix_bytes: keys and values kept of prompts that were read, for those that begin alike;
            0 keeps none.
    """

    slots: int = 16
    capacity: int = 4096
    queue: int = 256
    chunk: int = 1024
    block: int = 128
    prefix_bytes: int = 0

    def __post_init__(self) -> None:
        least = {"slots": 1, "capacity": 2, "queue": 1, "chunk": 1, "block": 1, "prefix_bytes": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} must be at least {bound}, got {getattr(self, name)}")
        if self.block > self.chunk:
            raise ValueError(f"block {self.block} is more than chunk {self.chunk}")
