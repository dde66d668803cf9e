"""A three-stage recipe that trains in seconds: its own language model, then two visual stages."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from PIL import Image

# How long an example takes says more about the machine than about the code.
settings.register_profile("default", deadline=None)
settings.load_profile("default")

RECIPE = """
name: tiny
out: {folder}/run
model:
  scratch: {{layers: 2, hidden_size: 32, heads: 2, kv_heads: 1, ffn_size: 48, vocab_size: 300,
            tokenizer_data: words}}
  patchifier: {{patch_size: 4, width: 8, merge: 2}}
  experts: {{ffn: all, attention: all}}
image: {{size: 16}}
optim: {{lr: 1.0e-2, warmup_steps: 2, schedule: cosine}}
data:
  words:
    sources: {{text: {{source: text_files, options: {{path: {folder}/text}}}}}}
    sequence_length: 48
    batch_size: 2
  pictures:
    sources: {{own: {{source: jsonl, options: {{path: {folder}/pictures.jsonl}}}}}}
    sequence_length: 48
    batch_size: 2
stages:
  language: {{duration: 4 steps, train: [text], data: words}}
  concept: {{duration: 5 steps, train: [patchifier, experts.ffn], data: pictures}}
  alignment:
    duration: 5 steps
    train: [experts, attention]
    data: pictures
    lr_scale: {{attention: 0.1}}
trainer: {{checkpoint_every: 3, log_every: 2, accelerator: cpu}}
evaluation:
  retention_source: {{source: text_files, options: {{path: {folder}/text}}}}
  retention_tokens: 256
"""

COLORS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (20, 160, 60)}


@pytest.fixture
def recipe_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Writes data and recipe; prepared chunks go below ``tmp_path`` too.

    Everything computes on one thread, here and in the processes that tests start: sums are split
    by thread, so another number of threads gives other last bits.
    """
    monkeypatch.setenv("LIGHTNING_MONO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "text").mkdir()
    words = "the red square is left of the blue one, and the green one is below. "
    for number in range(12):
        (tmp_path / "text" / f"{number}.txt").write_text(f"{words * 8} This was page {number}.")
    records = []
    for number in range(30):
        name, color = list(COLORS.items())[number % 3]
        image = Image.new("RGB", (16, 16), "white")
        image.paste(color, (number % 8, number % 5, number % 8 + 8, number % 5 + 8))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        (tmp_path / f"{number}.png").write_bytes(buffer.getvalue())
        record = {"id": str(number), "image": f"{number}.png"}
        records.append({**record, "question": "what color?", "answer": name})
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "pictures.jsonl").write_text(lines)
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE.format(folder=tmp_path))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield path
    torch.set_num_threads(threads)
