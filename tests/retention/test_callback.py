"""Retention during a run: at each boundary, across a resume, and in more than one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_mono import training
from lightning_mono.errors import CheckpointError, DataError, RecipeError, TrainingError
from lightning_mono.journal import Journal
from lightning_mono.recipe import load_recipe
from lightning_mono.retention import kl_nats
from lightning_mono.retention.reference import ROWS, Kept
from lightning_mono.runs import RunFolder
from lightning_mono.training import fit

FROZEN = [
    "stages.language.data=pictures",
    "stages.language.train=[patchifier]",
    "stages.alignment.train=[experts]",
]
"""Makes of the tiny recipe one in which no text weight ever trains."""

MEASURED = ("perplexity", "bits_per_byte", "kl", "kl_max", "agreement", "followed")


def records(run: Path) -> list[dict[str, Any]]:
    return Journal(run / "journal.jsonl").events("retention")


def test_a_frozen_text_path_stays_exactly_what_it_was(recipe_file: Path) -> None:
    result = fit(load_recipe(recipe_file, FROZEN))
    found = records(result.run.path)
    assert [r["stage"] for r in found] == ["start", "language", "concept", "alignment"]
    for record in found:
        assert record["logits_identical"] is True
        assert (record["kl"], record["kl_max"], record["max_abs_difference"]) == (0.0, 0.0, 0.0)
        assert (record["agreement"], record["followed"]) == (1.0, 1.0)
        assert record["perplexity"] == found[0]["perplexity"]
    retention: Any = result.metrics["retention"]
    assert retention["text_logits_identical"] is True
    assert (retention["kl_after"], retention["agreement_after"]) == (0.0, 1.0)
    assert retention["bits_per_byte_before"] == retention["bits_per_byte_after"]
    assert retention["bits_per_byte_after"] == found[0]["bits_per_byte"]


def test_what_language_pays_is_journalled_logged_and_the_same_after_a_resume(
    recipe_file: Path,
) -> None:
    folder = recipe_file.parent
    whole = fit(load_recipe(recipe_file, [f"out={folder}/whole"])).run
    found = records(whole.path)
    start, language, concept, alignment = found
    assert (start["kl"], start["agreement"], start["logits_identical"]) == (0.0, 1.0, True)
    assert language["kl_max"] > language["kl"] > 1e-3
    assert language["agreement"] < 1
    assert 0 <= language["followed"] <= 1
    assert {k: concept[k] for k in MEASURED} == {k: language[k] for k in MEASURED}
    assert alignment["kl"] != concept["kl"]

    board = EventAccumulator(str(whole.path / "tensorboard")).Reload()
    for key in MEASURED:
        points = board.Scalars(f"retention/{key}")
        assert [point.step for point in points] == [record["step"] for record in found]
        values = [record[key] for record in found]
        assert [point.value for point in points] == pytest.approx(values, rel=1e-6)

    run = fit(load_recipe(recipe_file, ["trainer.max_steps=6"])).run
    before = run.reference.read_bytes()
    fit(load_recipe(recipe_file), resume=True)
    assert run.reference.read_bytes() == before == whole.reference.read_bytes()
    assert [r for r in records(run.path) if r["step"] in (0, 4, 9, 14)] == found


def test_every_few_steps_too_and_last_of_the_exported_model(recipe_file: Path) -> None:
    result = fit(load_recipe(recipe_file, ["evaluation.retention_every=3"]))
    kept = Kept(result.run.reference)
    with torch.no_grad():
        ids = load_file(kept.path)["ids"]
        nats = [
            kl_nats(before, result.assistant.model(row[None]).logits[0])
            for before, row in zip(kept.rows(), ids, strict=True)
        ]
    last = records(result.run.path)[-1]
    assert len(ids) == last["compared_tokens"] / 128 <= ROWS
    assert last["kl"] == pytest.approx(float(torch.cat(nats).mean()), rel=1e-9)

    found = [(r["step"], r["stage"]) for r in records(result.run.path)]
    steps = {0: "start", 3: "language", 4: "language", 6: "concept", 9: "concept"}
    assert found == [*steps.items(), (12, "alignment"), (14, "alignment")]
    assert result.metrics["retention"]["records"][-1]["step"] == 14  # type: ignore[index]
    page = result.run.report.read_text(encoding="utf-8")
    assert page.count("after concept") == 1


@pytest.mark.slow
def test_a_lost_or_foreign_reference_is_refused(recipe_file: Path) -> None:
    run = fit(load_recipe(recipe_file, ["trainer.max_steps=6"])).run
    whole = run.reference.read_bytes()

    def refused(says: str, *changes: str) -> None:
        line = rf"^[^\n]*retention\.safetensors[^\n]*{says}[^\n]*$"
        with pytest.raises(CheckpointError, match=line):
            fit(load_recipe(recipe_file, changes), resume=True)

    refused("began with other held-out text", "evaluation.retention_tokens=128")
    run.reference.write_bytes(whole[: len(whole) // 2])
    refused("cannot be read")
    run.reference.unlink()
    refused("is missing.*evaluation.retention_source=null")
    fit(load_recipe(recipe_file, ["evaluation.retention_source=null"]), resume=True)


@pytest.mark.slow
def test_text_that_is_too_short_and_settings_that_make_no_sense(recipe_file: Path) -> None:
    (recipe_file.parent / "short").mkdir()
    for number in range(8):
        (recipe_file.parent / "short" / f"{number}.txt").write_text(f"page {number}")
    short = f"evaluation.retention_source.options.path={recipe_file.parent}/short"
    with pytest.raises(DataError, match=r"^evaluation.retention_source: \d+ tokens of text[^\n]*$"):
        fit(load_recipe(recipe_file, [short]))
    for change in ("retention_tokens=127", "retention_every=-1"):
        with pytest.raises(RecipeError, match=rf": evaluation\.{change.split('=')[0]}: "):
            load_recipe(recipe_file, [f"evaluation.{change}"])


@pytest.mark.slow
def test_weights_that_are_not_finite_stop_the_run(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Spoil(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
            if trainer.global_step == 9:
                module.model.norm.weight.data[0] = torch.nan

    build = training.build_callbacks
    monkeypatch.setattr(training, "build_callbacks", lambda *a, **k: [Spoil(), *build(*a, **k)])
    with pytest.raises(TrainingError, match=r"^step 9: held-out text[^\n]*no likelihood[^\n]*$"):
        fit(load_recipe(recipe_file))
    run = RunFolder(recipe_file.parent / "run")
    assert [r["step"] for r in records(run.path)] == [0, 4]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["mono_ddp", "mono_fsdp2"])
def test_two_processes_find_what_one_finds(recipe_file: Path, strategy: str) -> None:
    found = []
    for name, more in (("one", []), ("two", ["trainer.devices=2", f"trainer.strategy={strategy}"])):
        out = recipe_file.parent / name
        command = [sys.executable, "-m", "lightning_mono", "fit", str(recipe_file), f"out={out}"]
        command += ["trainer.precision=64-true", "optim.eps=1e-4", "data.words.batch_size=4"]
        command += ["data.pictures.batch_size=4", "trainer.max_steps=6", *more]
        done = subprocess.run(
            command,
            env=dict(os.environ, PYTHONWARNINGS="ignore", OMP_NUM_THREADS="1"),
            capture_output=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        found.append(records(out))
    for one, two in zip(*found, strict=True):
        for key in MEASURED:
            assert two[key] == pytest.approx(one[key], rel=1e-4, abs=1e-9), key
    start, language = found[1][:2]
    assert (start["logits_identical"], start["kl"], start["followed"]) == (True, 0.0, 1.0)
    assert language["kl"] > 1e-3
