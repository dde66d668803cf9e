"""What a recipe asks to be measured when training is done: metrics.json and report.html."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

from lightning_mono.assets import cache_dir
from lightning_mono.checkpoints.atomic import replacing
from lightning_mono.data.prepare import prepare
from lightning_mono.data.sample import Sample
from lightning_mono.data.sources import SourceSpec
from lightning_mono.data.store import Store
from lightning_mono.errors import AssetError
from lightning_mono.evaluation.benchmark import (
    Prediction,
    read_predictions,
    run_benchmark,
    score,
    write_predictions,
)
from lightning_mono.evaluation.report import AttentionPicture, write_report
from lightning_mono.inference import Assistant
from lightning_mono.journal import Journal
from lightning_mono.model import MonoModel
from lightning_mono.params import grouped
from lightning_mono.recipe import Recipe
from lightning_mono.recipe.schema import BenchmarkSection
from lightning_mono.retention.quiz import quiz, quiz_items
from lightning_mono.runs import RunFolder
from lightning_mono.speed import Speed

DISTANCES = ("kl", "kl_max", "agreement", "followed")
"""From the model that a run began with; runs of before they were measured lack them."""


def evaluate(
    recipe: Recipe,
    run: RunFolder,
    assistant: Assistant,
    *,
    question_only: RunFolder | None = None,
    language_run: Path | None = None,
    started: float | None = None,
) -> dict[str, Any]:
    """Measures a trained model and writes metrics.json and report.html into its run.

    Args:
        question_only: the run of the model that never saw an image, for comparison.
        language_run: the run that trained the backbone, whose losses the report shows.
        started: ``time.monotonic()`` when this process began with the run.

    Returns:
        What metrics.json holds.
    """
    journal = Journal(run.journal)
    metrics: dict[str, Any] = {}
    samples: list[Sample] = []
    predictions: list[Prediction] = []
    with journal.part("evaluate"):
        if recipe.evaluation.benchmark is not None:
            samples = benchmark_samples(recipe.evaluation.benchmark)
            predictions = _ask(recipe.evaluation.benchmark, samples, assistant)
            write_predictions(run.predictions, predictions)
            metrics["test"] = score(predictions, _blind(question_only, predictions))
        metrics["retention"] = _retention(journal)
        if recipe.evaluation.quiz:
            metrics["quiz"] = _quiz(recipe, assistant)
        metrics["parameters"] = _parameters(assistant.model)
    metrics["speed"] = _speed(journal)
    metrics["seconds"] = _seconds(journal, started)
    _write(run, metrics)
    with journal.part("report"):
        shown = {sample.id: sample.images[0] for sample in samples if sample.images}
        attention = _attention(assistant, samples, predictions)
        write_report(run.path, images=shown, attention=attention, language_run=language_run)
    metrics["seconds"] = _seconds(journal, started)
    _write(run, metrics)
    return metrics


def benchmark_samples(section: BenchmarkSection) -> list[Sample]:
    """The questions of a benchmark, with their images; the first ``limit`` of them."""
    spec = SourceSpec(section.source, section.split, section.options)
    store = Store(prepare(spec, cache_dir() / "prepared"))
    samples: list[Sample] = []
    asked = 0
    for index in range(len(store)):
        if section.limit is not None and asked >= section.limit:
            break
        samples.append(store[index])
        asked += len(samples[-1].exchanges)
    return samples


def _ask(section: BenchmarkSection, samples: list[Sample], model: Assistant) -> list[Prediction]:
    return run_benchmark(
        model, samples, batch_size=section.batch_size, max_new_tokens=section.max_new_tokens
    )


def _blind(run: RunFolder | None, predictions: list[Prediction]) -> list[Prediction] | None:
    """What the model without eyes said to the same questions."""
    if run is None:
        return None
    asked = {prediction.id for prediction in predictions}
    return [said for said in read_predictions(run.predictions) if said.id in asked]


def _retention(journal: Journal) -> dict[str, Any] | None:
    """The journal's findings on text, one record a boundary (the last of each counts)."""
    records = {(r["step"], r["stage"]): r for r in journal.events("retention")}
    if not records:
        return None
    ordered = [records[key] for key in sorted(records, key=lambda key: key[0])]
    return {
        "text_logits_identical": all(record["logits_identical"] for record in ordered),
        "perplexity_before": ordered[0]["perplexity"],
        "perplexity_after": ordered[-1]["perplexity"],
        "bits_per_byte_before": ordered[0].get("bits_per_byte"),
        "bits_per_byte_after": ordered[-1].get("bits_per_byte"),
        **{f"{name}_after": ordered[-1].get(name) for name in DISTANCES},
        "records": ordered,
    }


def _quiz(recipe: Recipe, assistant: Assistant) -> dict[str, Any]:
    """The quiz, answered by the model before it was trained, and after."""
    try:
        items = quiz_items()
    except AssetError as error:
        return {"skipped": str(error)}
    tokenizer, device = assistant.renderer.tokenizer, assistant.model.device
    if recipe.model.pretrained is not None:
        untouched = MonoModel.from_pretrained(recipe.model.pretrained, dtype=torch.float32)
    else:
        assert recipe.model.backbone is not None
        untouched = MonoModel.graft(recipe.model.backbone)
    before = quiz(untouched.to(device).eval(), tokenizer, items, device)
    after = quiz(assistant.model, tokenizer, items, device)
    return {"before": before.correct, "after": after.correct, "total": after.total}


def _parameters(model: MonoModel) -> dict[str, int]:
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    by_group = {g: sum(sizes[n] for n in names) for g, names in grouped(sizes).items()}
    return {"total": sum(sizes.values()), **by_group}


def _speed(journal: Journal) -> dict[str, float] | None:
    """Of training, over all sessions of the run; the last record of a step counts."""
    steps = {record["step"]: record for record in journal.events("step")}
    if not steps:
        return None
    speed = Speed()
    for record in steps.values():
        speed.add(record)
    return speed.figures()


def _seconds(journal: Journal, started: float | None) -> dict[str, float]:
    """Seconds by part, over all sessions of the run; ``total`` is this session's."""
    seconds: dict[str, float] = {}
    for event in journal.events("part"):
        seconds[event["name"]] = round(seconds.get(event["name"], 0.0) + event["seconds"], 2)
    total = sum(seconds.values()) if started is None else time.monotonic() - started
    return {"total": round(total, 2), **seconds}


def _write(run: RunFolder, metrics: dict[str, Any]) -> None:
    with replacing(run.metrics) as temporary:
        temporary.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


def _attention(
    assistant: Assistant, samples: list[Sample], predictions: list[Prediction]
) -> AttentionPicture | None:
    """Where the model looks as it gives its first right answer that is not yes or no."""
    by_id = {sample.id: sample for sample in samples}
    right = [p for p in predictions if p.correct and len(by_id[p.image].images) == 1]
    telling = [p for p in right if p.prediction not in ("yes", "no")] or right
    if not telling or assistant.renderer.images is None:
        return None
    chosen = telling[0]
    image = by_id[chosen.image].images[0]
    return AttentionPicture.of(assistant, image, chosen.question, chosen.prediction)
