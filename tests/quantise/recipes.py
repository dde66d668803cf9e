"""A recipe beside rounded text, and the diary of its run."""

from __future__ import annotations

import json
from pathlib import Path

from lightning_mono.recipe import Recipe, load_recipe

RECIPE = """
name: rounded
out: {folder}/run
model: {{{start}, quantize: nf4}}
image: {{size: 16}}
optim: {{name: adamw8bit, lr: 1.0e-2}}
data:
  pictures:
    sources: {{own: {{source: jsonl, options: {{path: {folder}/pictures.jsonl}}}}}}
    sequence_length: 64
    batch_size: 2
stages:
  concept: {{duration: 3 steps, train: [patchifier, experts.ffn], data: pictures}}
  alignment: {{duration: 3 steps, train: [experts, norms], data: pictures, lr_scale: {{norms: 0}}}}
trainer: {{accelerator: cpu, checkpoint_every: 2}}
evaluation:
  retention_source: {{source: text_files, options: {{path: {folder}/text}}}}
  retention_tokens: 256
"""
BACKBONE = (
    "backbone: {folder}/language, patchifier: {{patch_size: 4, width: 6, merge: 2}}, "
    "experts: {{ffn: all, attention: all}}"
)
PRETRAINED = "pretrained: {folder}/model, experts: {{attention: last:1}}"


def recipe(folder: Path, start: str, *overrides: str) -> Recipe:
    path = folder / "rounded.yaml"
    path.write_text(RECIPE.format(folder=folder, start=start.format(folder=folder)))
    return load_recipe(path, list(overrides))


def events(run: Path, kind: str) -> list[dict[str, object]]:
    lines = map(json.loads, (run / "journal.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == kind]
