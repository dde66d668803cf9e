"""Judges: what benchmarks ask about answers that no rule can score.

A metric words its requests and reads the verdicts; who gives them is exchanged freely. There is no
judge behind a network here: `ModelJudge` asks a local model, `RecordedJudge` replays what any judge
has said before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lightning_mono.errors import DataError


@dataclass(frozen=True)
class Request:
    """One answer to be judged."""

    id: str  # of the question
    prediction: str
    prompt: str  # all the judge needs to know, the prediction included
    images: tuple[bytes, ...] = ()  # encoded


class Judge(Protocol):
    """Gives a verdict, in the words that the prompt asks for, on each request."""

    def verdicts(self, requests: Sequence[Request]) -> list[str]:
        """Return one verdict a request, in their order."""


class Answerer(Protocol):
    """A model that answers questions about images, such as `lightning_mono.inference.Assistant`."""

    def answer(self, items: list[tuple[tuple[bytes, ...], str]], max_new_tokens: int) -> list[str]:
        """Answer a batch of (encoded images, question), each in at most `max_new_tokens`."""


class ModelJudge:
    """Asks a local model.

    Args:
        model: for example `Assistant.from_pretrained("OpenGVLab/Mono-InternVL-2B")`.
        batch_size: requests in a batch.
        max_new_tokens: the longest verdict, in tokens.
    """

    def __init__(self, model: Answerer, *, batch_size: int = 1, max_new_tokens: int = 64) -> None:
        self.model = model
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens

    def verdicts(self, requests: Sequence[Request]) -> list[str]:
        """Return what the model says to each prompt."""
        said: list[str] = []
        for start in range(0, len(requests), self.batch_size):
            batch = requests[start : start + self.batch_size]
            items = [(request.images, request.prompt) for request in batch]
            said += self.model.answer(items, self.max_new_tokens)
        return said


class RecordedJudge:
    """Replays verdicts from a file of JSON objects, one a line: `id`, `prediction`, `verdict`.

    Args:
        path: the file, as `write_verdicts` writes it. A `verdict` that is not a text (a number, an
            object) is taken as its JSON.

    Raises:
        DataError: the file cannot be read; from `verdicts`, it holds no verdict on a question, or
            one on another prediction than is to be judged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recorded: dict[str, tuple[str, str]] = {}  # id to (prediction, verdict)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: verdicts cannot be read ({error})") from error
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                verdict = record["verdict"]
                text = verdict if isinstance(verdict, str) else json.dumps(verdict)
                self.recorded[str(record["id"])] = (str(record["prediction"]), text)
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"{path}, line {number}: not an object with id, prediction and verdict"
                ) from error

    def verdicts(self, requests: Sequence[Request]) -> list[str]:
        """Return the recorded verdict on each request."""
        return [self._verdict(request) for request in requests]

    def _verdict(self, request: Request) -> str:
        if request.id not in self.recorded:
            raise DataError(f"{self.path}: no verdict on {request.id!r}; have it judged and add it")
        prediction, verdict = self.recorded[request.id]
        if prediction != request.prediction:
            raise DataError(
                f"{self.path}: the verdict on {request.id!r} is about the answer "
                f"{prediction[:60]!r} and not "
                f"{request.prediction[:60]!r}; have the new answer judged"
            )
        return verdict


def write_verdicts(path: Path, requests: Iterable[Request], verdicts: Iterable[str]) -> None:
    """Write verdicts for `RecordedJudge`."""
    with path.open("w", encoding="utf-8") as file:
        for request, verdict in zip(requests, verdicts, strict=True):
            record = {"id": request.id, "prediction": request.prediction, "verdict": verdict}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
