"""A run's folder as training leaves it, written without training."""

from __future__ import annotations

import io
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from lightning_mono.evaluation.benchmark import Prediction, score, write_predictions
from lightning_mono.evaluation.report import AttentionPicture

SHAPES = ("circle", "rectangle", "triangle")
COLOURS = {"red": "#d62728", "teal": "#17a2a2", "gray": "#888888", "blue": "#1f6fd6"}
STAGES = {  # name: (steps, trained, trainable parameters, learning rate)
    "concept": (60, ["patchifier", "experts.ffn"], 1_402_880, 1e-3),
    "alignment": (90, ["patchifier", "experts.ffn", "experts.attention"], 1_796_096, 5e-4),
    "instruction": (250, ["patchifier", "experts.ffn", "experts.attention"], 1_796_096, 3e-4),
}
TOTAL = 3_519_744
RECIPE = """\
# Shapes & colours: teaches a small language model to see.
name: quickstart
model:
  backbone: runs/language/model
  patchifier: {kind: conv, patch_size: 8, width: 128, merge: 2}
  experts: {ffn: all, attention: all}
stages:
  concept:     {duration: 60 steps, train: [patchifier, experts.ffn], data: captions}
  alignment:   {duration: 90 steps, train: [patchifier, experts.*], data: mixed}
  instruction: {duration: 250 steps, train: [patchifier, experts.*], data: vqa}
"""


def drawing(shape: str, colour: str, seed: int = 0, side: int = 64) -> bytes:
    """A PNG of one shape."""
    draw = random.Random(seed)
    image = Image.new("RGB", (side, side), "#e9e6df")
    x, y, size = draw.randint(4, 26), draw.randint(4, 26), draw.randint(18, 32)
    canvas, box = ImageDraw.Draw(image), (x, y, x + size, y + size)
    if shape == "circle":
        canvas.ellipse(box, fill=COLOURS[colour])
    elif shape == "rectangle":
        canvas.rectangle(box, fill=COLOURS[colour])
    else:
        corners = [(x, y + size), (x + size, y + size), (x + size // 2, y)]
        canvas.polygon(corners, fill=COLOURS[colour])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def predictions_of(skill: float, pictures: int = 40) -> tuple[list[Prediction], dict[str, bytes]]:
    """What a model that knows `skill` of the answers says about drawings."""
    draw = random.Random(1)
    predictions, images = [], {}
    for number in range(pictures):
        shape, colour = draw.choice(SHAPES), draw.choice(list(COLOURS))
        sample = f"test/{number}"
        images[sample] = drawing(shape, colour, number)
        other = draw.choice(SHAPES)
        exchanges = [
            ("shape", f"what is the {colour} shape?", shape, SHAPES),
            ("colour", f"what color is the {shape}?", colour, tuple(COLOURS)),
            ("yes/no", f"is there a {other}?", "yes" if other == shape else "no", ("yes", "no")),
            ("yes/no", f"is no {colour} shape present?", "no", ("yes", "no")),
        ]
        for index, (kind, question, answer, possible) in enumerate(exchanges):
            said = answer if draw.random() < skill else draw.choice(possible)
            predictions.append(
                Prediction(
                    f"{sample}#{index}", sample, question, kind, answer, said, said == answer
                )
            )
    return predictions, images


def journal(
    stages: dict[str, tuple[int, list[str], int, float]], *, text_kept: bool = True
) -> list[dict[str, Any]]:
    """The records of a run that was not interrupted."""
    draw = random.Random(2)
    records: list[dict[str, Any]] = [
        {"event": "part", "name": "prepare", "seconds": 21.4},
        {
            "event": "skipped",
            "source": "easy_vqa",
            "count": 2,
            "examples": [{"id": "train/7", "reason": "truncated <PNG>"}],
        },
        _retention("start", 0, 0.0),
    ]
    step = 0
    for index, (name, (count, train, trainable, rate)) in enumerate(stages.items()):
        records.append(
            {
                "event": "stage",
                "step": step,
                "stage": name,
                "train": train,
                "trainable": trainable,
                "total": TOTAL,
                "seconds": 1.0 * step,
                "resumed": False,
            }
        )
        for i in range(1, count + 1):
            step += 1
            loss = (5.5 - 1.6 * index) * math.exp(-5 * i / count) + 0.35 - 0.05 * index
            records.append(
                {
                    "event": "step",
                    "step": step,
                    "stage": name,
                    "loss": loss * draw.uniform(0.85, 1.2),
                    "lr": rate * min(1.0, i / 15) * (1 - 0.7 * i / count),
                    "tokens": 4096,
                    "supervised": 700,
                    "seconds": 0.31,
                }
            )
        records.append(_retention(name, step, 0.0 if text_kept else 0.4 * (index + 1)))
    parts = {"language": 96.0, "train": step * 0.31 + 9, "compare:question_only": 88.0}
    parts |= {"evaluate": 31.0, "report": 2.2}
    return records + [{"event": "part", "name": n, "seconds": s} for n, s in parts.items()]


def _retention(stage: str, step: int, moved: float) -> dict[str, Any]:
    return {
        "event": "retention",
        "step": step,
        "stage": stage,
        "logits_identical": moved == 0,
        "max_abs_difference": moved,
        "perplexity": 31.2 + moved,
        "perplexity_tokens": 4096,
    }


def write_journal(folder: Path, records: list[dict[str, Any]]) -> None:
    """Write a run's journal, one record a line."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "journal.jsonl").write_text(lines, encoding="utf-8")


def write_run(folder: Path, *, blind: bool = True, text_kept: bool = True) -> dict[str, bytes]:
    """Write a finished run and return its test pictures."""
    write_journal(folder, journal(STAGES, text_kept=text_kept))
    predictions, images = predictions_of(0.75)
    write_predictions(folder / "predictions.jsonl", predictions)
    scores = score(predictions, predictions_of(0.2)[0] if blind else None)
    metrics = {
        "test": scores,
        "quiz": {"before": 78, "after": 77, "total": 100},
        "seconds": {"total": 380.0},
        "speed": {"tokens_per_second": 13_210.0, "loader_wait": 0.0123, "opening_seconds": 2.4},
        "parameters": {
            "language model": 1_723_648,
            "patchifier": 229_888,
            "visual_experts": 1566208,
        },
    }
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return images


def looking(layers: int = 6, grid: int = 8) -> AttentionPicture:
    """Attention that gathers on the shape, layer by layer."""
    image = drawing("circle", "red", seed=3)
    rows, columns = np.mgrid[:grid, :grid]
    distance = (rows - grid * 0.35) ** 2 + (columns - grid * 0.33) ** 2
    noise = np.random.default_rng(0).uniform(0.3, 1.0, (layers, grid, grid))
    focus = np.linspace(0.0, 0.6, layers)[:, None, None]
    weights = noise * np.exp(-distance * focus)
    share = np.linspace(0.2, 0.55, layers)[:, None, None]
    weights *= share / weights.sum((1, 2), keepdims=True)
    return AttentionPicture(image, "what is the red shape?", "circle", weights.astype(np.float32))
