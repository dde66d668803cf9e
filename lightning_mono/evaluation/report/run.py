"""Reads a run's folder: the journal, the scores, the predictions and the recipe.

A run that was killed and resumed repeats records in its journal. The last record of a step counts,
a stage begins where it first began, and the seconds of a part add up over its attempts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from lightning_mono.errors import DataError
from lightning_mono.evaluation.benchmark import Prediction, Scores, read_predictions


@dataclass(frozen=True)
class Step:
    """One optimizer step."""

    step: int
    stage: str
    loss: float  # nats a supervised token
    lr: float
    tokens: int
    supervised: int  # of the tokens
    seconds: float


@dataclass(frozen=True)
class Stage:
    """A stage that the run entered."""

    name: str
    start: int  # steps done before it
    end: int  # steps done when it ended, or up to now
    train: tuple[str, ...]  # patterns of parameter groups
    trainable: int
    total: int


@dataclass(frozen=True)
class Retention:
    """What a check of the language found; `stage` is "start" or the stage that had just ended."""

    step: int
    stage: str
    logits_identical: bool
    max_abs_difference: float
    perplexity: float
    perplexity_tokens: int
    kl: float | None = None  # nats a token from the untouched model; None: not measured
    agreement: float | None = None  # share of tokens behind which both hold the same one likeliest


@dataclass(frozen=True)
class Skipped:
    """Samples of a source that could not be used."""

    source: str
    count: int
    examples: tuple[dict[str, str], ...]  # {"id", "reason"}


@dataclass(frozen=True)
class Journal:
    """What happened during a run, in order."""

    steps: list[Step] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    retention: list[Retention] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)  # seconds by part of the run
    skipped: list[Skipped] = field(default_factory=list)
    torn_lines: int = 0  # left by a kill in the middle of a write

    def in_stage(self, stage: Stage) -> list[Step]:
        """List the steps of a stage."""
        return [step for step in self.steps if stage.start < step.step <= stage.end]


@dataclass(frozen=True)
class Run:
    """All that a report is made from; what the run has not produced yet is None or empty."""

    name: str
    recipe: str  # YAML
    journal: Journal
    test: Scores | None
    predictions: list[Prediction]
    total_seconds: float
    parameters: dict[str, int]
    quiz: dict[str, int] | None  # {"before", "after", "total"}: items answered rightly
    speed: dict[str, float] | None  # {"tokens_per_second", "loader_wait", "opening_seconds", ...}


def read_run(folder: Path) -> Run:
    """Read a run's folder.

    Raises:
        DataError: the folder is not a run's, or a file in it cannot be read.
    """
    journal = read_journal(folder / "journal.jsonl")
    metrics = _read_json(folder / "metrics.json")
    predictions = folder / "predictions.jsonl"
    recipe = folder / "recipe.yaml"
    parts = sum(journal.parts.values())  # more than the last attempt's total in a resumed run
    quiz = metrics.get("quiz", {})
    return Run(
        name=folder.resolve().name,
        recipe=recipe.read_text(encoding="utf-8") if recipe.exists() else "",
        journal=journal,
        test=metrics.get("test"),
        predictions=read_predictions(predictions) if predictions.exists() else [],
        total_seconds=max(metrics.get("seconds", {}).get("total", 0.0), parts),
        parameters=metrics.get("parameters", {}),
        quiz=quiz if "total" in quiz else None,
        speed=metrics.get("speed"),
    )


def read_journal(path: Path) -> Journal:
    """Read a journal and settle what a resumed run wrote more than once.

    Raises:
        DataError: there is no such file, or a record lacks a key.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; is {path.parent} the folder of a run?")
    steps: dict[int, Step] = {}
    stages: dict[str, dict[str, Any]] = {}
    retention: dict[str, Retention] = {}
    parts: dict[str, float] = {}
    skipped: dict[str, Skipped] = {}
    torn = 0
    for number, record in _records(path):
        event = record.pop("event", None)
        try:
            match event:
                case None:
                    torn += 1
                case "step":
                    steps[record["step"]] = _build(Step, record)
                case "stage":
                    start = stages.get(record["stage"], record)["step"]
                    stages[record["stage"]] = {**record, "step": min(start, record["step"])}
                case "retention":
                    retention[record["stage"]] = _build(Retention, record)
                case "part":
                    parts[record["name"]] = parts.get(record["name"], 0.0) + record["seconds"]
                case "skipped":
                    skipped[record["source"]] = _build(Skipped, record)
        except KeyError as error:
            raise DataError(f"{path}, line {number}: a {event} record without {error}") from error
    last = max(steps, default=0)
    return Journal(
        steps=[steps[step] for step in sorted(steps)],
        stages=_stages(list(stages.values()), last),
        retention=sorted(retention.values(), key=lambda check: check.step),
        parts=parts,
        skipped=list(skipped.values()),
        torn_lines=torn,
    )


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line)
            except ValueError:
                record = {}
            yield number, record if isinstance(record, dict) else {}


def _build(kind: type, record: dict[str, Any]) -> Any:
    values = {f.name: record[f.name] for f in fields(kind) if f.name in record or _needed(f)}
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _needed(f: Field[Any]) -> bool:
    return f.default is MISSING and f.default_factory is MISSING


def _stages(records: list[dict[str, Any]], last: int) -> list[Stage]:
    records = sorted(records, key=lambda record: record["step"])
    starts = [record["step"] for record in records]
    ends = [*starts[1:], max(last, *starts[-1:])] if starts else []
    return [
        Stage(
            name=record["stage"],
            start=record["step"],
            end=end,
            train=tuple(record["train"]),
            trainable=record["trainable"],
            total=record["total"],
        )
        for record, end in zip(records, ends, strict=True)
    ]


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); evaluate the run again") from error
