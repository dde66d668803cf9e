"""``lightning-mono retention``: every stage of a run against the LLM that the run was made from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lightning_mono import cli
from lightning_mono.backbones import train_bpe
from lightning_mono.backbones.tokenizer_files import TokenizerFiles
from lightning_mono.inference import Assistant, make_renderer
from lightning_mono.journal import Journal
from lightning_mono.model import MonoModel
from lightning_mono.recipe import load_recipe
from lightning_mono.testing import tiny_backbone, tiny_model
from lightning_mono.training import fit

SEES = """
name: sees
out: {folder}/sees
model:
  backbone: {folder}/llm
  patchifier: {{patch_size: 4, width: 8, merge: 2}}
image: {{size: 16}}
optim: {{lr: 1.0e-2}}
data:
  pictures:
    sources: {{own: {{source: jsonl, options: {{path: {folder}/pictures.jsonl}}}}}}
    sequence_length: 48
    batch_size: 2
stages:
  concept: {{duration: 2 steps, train: [patchifier, experts.ffn], data: pictures}}
  alignment: {{duration: 3 steps, train: [experts, attention], data: pictures}}
trainer: {{accelerator: cpu}}
evaluation:
  retention_source: {{source: text_files, options: {{path: {folder}/text}}}}
  retention_tokens: 300
"""

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def runs(recipe_file: Path) -> Path:
    """The folder of a run that sees, of the LLM it was made from, and of one without such."""
    folder = recipe_file.parent
    backbone = tiny_backbone()
    model = MonoModel.graft(backbone)
    renderer = make_renderer(model, backbone.tokenizer, "plain", None)
    files = TokenizerFiles.of_backbone(backbone)
    Assistant(model, renderer, "plain", files).save(folder / "llm")
    path = folder / "sees.yaml"
    path.write_text(SEES.format(folder=folder))
    fit(load_recipe(path))
    (folder / "run").mkdir()
    shutil.copy(recipe_file, folder / "run" / "recipe.yaml")
    return folder


def found(capsys: Captured, *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert cli.main(["retention", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: Captured, *arguments: str) -> str:
    capsys.readouterr()
    assert cli.main(["retention", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    return said.err


def test_each_stage_of_a_run(runs: Path, capsys: Captured) -> None:
    sees = str(runs / "sees")
    every = found(capsys, sees)
    assert [model["name"] for model in every["models"]] == ["concept", "alignment", "model"]
    assert every["tokens"] == 2 * 127
    base, (concept, alignment, exported) = every["untouched"], every["models"]
    for same in (base, concept):
        assert same["divergence"]["identical"] is True
        assert (same["divergence"]["kl"], same["divergence"]["agreement"]) == (0.0, 1.0)
        assert same["continuation"]["followed"] == 1.0
        assert same["likelihood"] == base["likelihood"]
    assert alignment["divergence"]["kl"] > 1e-4
    assert alignment["likelihood"]["perplexity"] != base["likelihood"]["perplexity"]
    assert {**exported, "name": ""} == {**alignment, "name": ""}

    # RUN/STAGE is the same model, and what the run found at that stage's end is found again.
    (again,) = found(capsys, f"{sees}/alignment")["models"]
    assert {**again, "name": ""} == {**alignment, "name": ""}
    (between,) = found(capsys, f"{sees}/alignment", "--against", f"{sees}/concept")["models"]
    noted = Journal(runs / "sees" / "journal.jsonl").events("retention")[-1]
    for key in ("kl", "kl_max", "agreement"):
        assert between["divergence"][key] == pytest.approx(noted[key], rel=1e-5)
    for key in ("perplexity", "bits_per_byte"):
        assert between["likelihood"][key] == pytest.approx(noted[key], rel=1e-6)

    (runs / "book.txt").write_text("the green square is below the red one. " * 60)
    capsys.readouterr()
    assert cli.main(["retention", sees, "--text", str(runs / "book.txt"), "--tokens", "400"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:-1]] == ["concept", "alignment", "model"]
    assert len({len(line) for line in lines[:-1]}) == 1

    line = refused(capsys, f"{sees}/nothing")
    assert "no stage 'nothing' that has ended (concept, alignment)" in line
    line = refused(capsys, str(runs / "run" / "language"))
    assert "trained its language model from nothing" in line
    assert "--against" in line
    (tokenizer := runs / "other").mkdir()
    tiny_model().save_pretrained(tokenizer)
    train_bpe(["something else"], 270).save(str(tokenizer / "tokenizer.json"))
    assert "have other words" in refused(capsys, sees, "--against", str(tokenizer))
    (runs / "book.txt").write_text("too short")
    assert "tokens of text" in refused(capsys, sees, "--text", str(runs / "book.txt"))
    (runs / "book.txt").write_bytes(b"\xff\xfe\x80")
    assert "book.txt: cannot be read" in refused(capsys, sees, "--text", str(runs / "book.txt"))
    assert "no data source 'stdlib_doc'; did you mean" in refused(
        capsys, sees, "--text", "stdlib_doc"
    )


def test_a_model_that_is_no_run_has_to_be_told_what_it_was(
    tmp_path: Path, capsys: Captured
) -> None:
    tiny_model().save_pretrained(tmp_path / "a")
    assert "is no run; name what to compare with" in refused(capsys, str(tmp_path / "a"))
    assert "no model folder" in refused(capsys, "/no/where", "--against", "/no/where/either")
