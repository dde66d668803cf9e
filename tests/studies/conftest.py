"""A study of a tiny recipe: text only, so that a run takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

RECIPE = """\
name: tiny
model:
  scratch:
    {layers: 2, hidden_size: 16, heads: 4, kv_heads: 2, ffn_size: 24, vocab_size: 300,
     tokenizer_data: text}
  experts: {ffn: none}
optim: {lr: 1.0e-2}
data:
  text: {sources: {docs: {source: stdlib_docs}}, sequence_length: 32, batch_size: 2}
stages:
  first: {duration: 3 steps, train: [everything], data: text}
  second: {duration: 4 steps, train: [everything], data: text}
trainer: {checkpoint_every: 2}
evaluation:
  retention_source: {source: stdlib_docs, split: test}
  retention_tokens: 256
"""

STUDY = """\
name: rates
question: Which rate is best?
base: tiny.yaml
axes:
  optim.lr: [0.01, 0.03]
baseline: "0.01"
seeds: [0, 1]
measures:
  perplexity:
    path: retention.perplexity_after
    form: number
    better: lower
    references: {before: retention.perplexity_before}
"""


@pytest.fixture
def write_study(tmp_path: Path) -> Callable[..., Path]:
    """Writes the study, with words of it replaced, and its recipe beside it; gives its path."""

    def write(*replaced: tuple[str, str], recipe: str = RECIPE) -> Path:
        text = STUDY
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "tiny.yaml").write_text(recipe)
        path = tmp_path / "rates.yaml"
        path.write_text(text)
        return path

    return write
