"""Writes a run's report: one HTML file that needs nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lightning_mono.evaluation.report import figures, sheet, words
from lightning_mono.evaluation.report.attention import AttentionPicture, overlay
from lightning_mono.evaluation.report.pages import chart, environment
from lightning_mono.evaluation.report.run import Journal, Run, read_journal, read_run
from lightning_mono.evaluation.report.svg import picture, png_uri

SAMPLE_CARDS, SAMPLE_QUESTIONS, MISTAKE_CARDS = 8, 3, 4


def write_report(
    run: Path,
    *,
    images: Mapping[str, bytes] | None = None,
    attention: AttentionPicture | None = None,
    language_run: Path | None = None,
) -> Path:
    """Write `report.html` into a run's folder. What the run lacks, the page says it lacks.

    Args:
        run: the folder of a run, finished or not.
        images: encoded test pictures by sample id, to be shown beside the predictions.
        attention: the attention of one answer.
        language_run: the folder of the run that trained the language model, where one did.

    Returns:
        The path of the report.

    Raises:
        DataError: a folder is not a run's, or a file of it cannot be read.
    """
    found = read_run(run)
    language = None if language_run is None else read_journal(language_run / "journal.jsonl")
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            run=found,
            summary=words.summary(found),
            tiles=words.tiles(found),
            **_answers(found, images or {}),
            **_learning(found.journal, language),
            **_time(found),
            maps=None if attention is None else _maps(attention),
        )
    )
    path = run / "report.html"
    partial = run / f"report.html.{os.getpid()}.partial"
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, path)
    return path


def _answers(run: Run, images: Mapping[str, bytes]) -> dict[str, Any]:
    test = run.test
    kinds = sorted(test["by_kind"].items(), key=lambda pair: -pair[1]["questions"]) if test else []
    wrong = sum(not p.correct and p.image in images for p in run.predictions)
    description = "Accuracy by kind of question; the table below holds the numbers."
    return {
        "accuracy": test
        and chart("accuracy", description, lambda w: figures.accuracy_figure(test, w)),
        "guessing": test and words.guessing(test),
        "kinds": [("All questions", test), *((figures.part_name(k), s) for k, s in kinds)],
        "sample": sheet.sample(run.predictions, images, SAMPLE_CARDS, SAMPLE_QUESTIONS),
        "mistakes": sheet.mistakes(run.predictions, images, MISTAKE_CARDS),
        "wrong": wrong,
    }


def _learning(journal: Journal, language: Journal | None) -> dict[str, Any]:
    rows = []
    for stage in journal.stages:
        steps = journal.in_stage(stage)
        rows.append(
            {
                "name": stage.name,
                "train": stage.train,
                "trainable": stage.trainable,
                "total": stage.total,
                "steps": len(steps),
                "tokens": sum(step.tokens for step in steps),
                "seconds": sum(step.seconds for step in steps),
            }
        )
    return {
        "loss": _loss(journal, "loss"),
        "bands": figures.caption_of_stages(journal),
        "stages": rows,
        "language_loss": language and _loss(language, "language-loss"),
    }


def _loss(journal: Journal, name: str) -> dict[str, Markup] | None:
    if not journal.steps:
        return None
    first, last = journal.steps[0].loss, journal.steps[-1].loss
    description = f"Loss over {len(journal.steps)} steps, from {first:.3g} to {last:.3g}."
    return chart(name, description, lambda width: figures.loss_figure(journal, width))


def _time(run: Run) -> dict[str, Any]:
    parts = run.journal.parts
    said = ", ".join(f"{figures.part_name(n)} {words.duration(s)}" for n, s in parts.items())
    draw = lambda width: figures.time_figure(run.journal, width)  # noqa: E731
    return {
        "time": chart("time", f"Time by part: {said}.", draw) if parts else None,
        "rest": run.total_seconds - sum(parts.values()),
    }


def _maps(attention: AttentionPicture) -> dict[str, Any]:
    layers = [
        {"layer": i + 1, "share": float(share), "uri": png_uri(overlay(attention, i, 128))}
        for i, share in enumerate(attention.shares)
    ]
    shown = attention.shown_layer
    return {
        "question": attention.question,
        "answer": attention.answer,
        "image": picture(attention.image, "of the attention map", longest_side=640),
        "layers": layers,
        "large": {**layers[shown], "uri": png_uri(overlay(attention, shown, 448))},
        "most": bool(attention.shares[shown] == attention.shares.max()),
    }
