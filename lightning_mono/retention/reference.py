"""What a run keeps of the LLM that it began with, so that no second model is ever held."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightning_mono.checkpoints.atomic import replacing
from lightning_mono.errors import CheckpointError
from lightning_mono.retention.measures import LanguageModel, continuations, logits_of
from lightning_mono.retention.text import HeldOut

ROWS = 8
"""Rows of the held-out text whose logits are kept. All of them: KL cannot be had from the top k."""

PROMPT = 32
"""Tokens at the beginning of each kept row that are continued."""

CONTINUED = 16
"""Tokens that are said behind each of them."""


@dataclass(frozen=True, eq=False)
class Reference:
    """The untouched LLM on a few rows of text.

    Attributes:
        ids: (rows, width) int64, the rows.
        logits: (rows, width, vocabulary) fp32, of each of their tokens.
        said: (rows, CONTINUED) int64, its greedy continuations of their first PROMPT tokens.
    """

    ids: Tensor
    logits: Tensor
    said: Tensor

    @classmethod
    def take(cls, model: LanguageModel, text: HeldOut, device: torch.device | str) -> Reference:
        """Reads the first rows of a text with a model on ``device``."""
        ids = text.ids[:ROWS]
        logits = torch.stack([row.cpu() for row in logits_of(model, ids, device)])
        return cls(ids, logits, continuations(model, prompts_of(text), CONTINUED, device))

    def write(self, path: Path) -> None:
        """Writes a file that appears whole or not at all."""
        with replacing(path) as temporary:
            save_file({"ids": self.ids, "logits": self.logits, "said": self.said}, temporary)


@dataclass(frozen=True)
class Kept:
    """A reference on disk, read piece by piece."""

    path: Path

    def check(self, text: HeldOut) -> None:
        """Whether it is there, and of this text.

        Raises:
            CheckpointError: it is not.
        """
        if not torch.equal(self._read("ids"), text.ids[:ROWS]):
            raise CheckpointError(
                f"{self.path}: the run began with other held-out text; undo the change of "
                "evaluation.retention_source or retention_tokens, or start anew with --fresh"
            )

    @property
    def said(self) -> Tensor:
        """(rows, CONTINUED) int64."""
        return self._read("said")

    def rows(self) -> Iterator[Tensor]:
        """The logits of one row after the other: (width, vocabulary) fp32."""
        with safe_open(self.path, framework="pt") as file:
            logits = file.get_slice("logits")
            for row in range(logits.get_shape()[0]):
                yield logits[row]

    def _read(self, name: str) -> Tensor:
        try:
            with safe_open(self.path, framework="pt") as file:
                return file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            reason = "is missing" if not self.path.exists() else f"cannot be read ({error})"
            raise CheckpointError(
                f"{self.path} {reason}, and with it what the run began with; go on without it with "
                "evaluation.retention_source=null, or start anew with --fresh"
            ) from error


def prompts_of(text: HeldOut) -> Tensor:
    """What is continued: the beginnings of the kept rows, (rows, PROMPT) int64."""
    return text.ids[:ROWS, :PROMPT]
