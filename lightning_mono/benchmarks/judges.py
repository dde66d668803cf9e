"""From what `--judge` says to a judge, whose verdicts are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_mono.metrics import Judge, ModelJudge, RecordedJudge, Request, write_verdicts


class Kept:
    """A judge whose verdicts can be replayed: it keeps what it was asked and has said."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.requests: list[Request] = []
        self.said: list[str] = []

    def verdicts(self, requests: Sequence[Request]) -> list[str]:
        """Return the judge's verdicts."""
        said = self.judge.verdicts(requests)
        self.requests += requests
        self.said += said
        return said

    def write(self, path: Path) -> None:
        """Write what was said, for `--judge FILE` the next time."""
        if self.said:
            write_verdicts(path, self.requests, self.said)


def open_judge(spec: str, batch_size: int, device: str) -> Judge:
    """Open a judge.

    Args:
        spec: a file of verdicts (.jsonl), or a model as `Assistant.from_pretrained` takes it.
        batch_size: requests in a batch, of a model.
        device: that a model is to run on.

    Raises:
        DataError, CheckpointError, AssetError: there is no such file or model.
    """
    if spec.endswith(".jsonl"):
        return RecordedJudge(Path(spec).expanduser())
    from lightning_mono.inference import Assistant

    model = Assistant.from_pretrained(spec, device=device)
    return ModelJudge(model, batch_size=batch_size)
