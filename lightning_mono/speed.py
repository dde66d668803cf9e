"""How fast a run trains, and how long it waits for its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class Speed:
    """Sums over steps, from their records in a journal.

    Attributes:
        steps: how many.
        tokens: that they read.
        seconds: that they took, from asking for a batch to the update.
        waited: seconds of these until the batch was there.
        opening: seconds until the first batch of a stage was there, or of a run that goes on:
            processes start and files are opened. They are no part of the others.
    """

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    opening: float = 0.0

    def add(self, record: Mapping[str, Any]) -> None:
        """Adds a step; records of older journals do not know how long it waited."""
        self.steps += 1
        self.tokens += record["tokens"]
        self.opening += record.get("opening", 0.0)
        self.seconds += record["seconds"] - record.get("opening", 0.0)
        self.waited += record.get("waited", 0.0)

    @property
    def tokens_per_second(self) -> float:
        """Over all the time, opening included."""
        return self.tokens / max(self.seconds + self.opening, 1e-9)

    @property
    def loader_wait(self) -> float:
        """The share of ``seconds`` in which the loader was waited for, from 0 to 1."""
        return self.waited / max(self.seconds, 1e-9)

    def figures(self) -> dict[str, float]:
        """For the journal and metrics.json."""
        return {
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(self.tokens_per_second, 1),
            "loader_wait": round(self.loader_wait, 5),
            "opening_seconds": round(self.opening, 3),
        }
