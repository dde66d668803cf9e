"""The command line from recipe to answer, on a tiny run, and what it says when things go wrong."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from lightning_mono.checkpoints.run import latest, step_of


def run(*arguments: str, cwd: Path, stdin: str = "", file_bytes: int | None = None):  # type: ignore[no-untyped-def]
    """Runs ``lightning-mono``; ``file_bytes`` is the largest file that it can write."""

    def limit() -> None:
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))

    return subprocess.run(
        [sys.executable, "-m", "lightning_mono", *arguments],
        cwd=cwd,
        input=stdin,
        text=True,
        capture_output=True,
        timeout=300,
        preexec_fn=limit,
        env=dict(os.environ, PYTHONWARNINGS="ignore"),
    )


def test_fit_then_ask(recipe_file: Path, tmp_path: Path) -> None:
    fitted = run("fit", str(recipe_file), "--json", cwd=tmp_path)
    assert fitted.returncode == 0, fitted.stderr
    metrics = json.loads(fitted.stdout.splitlines()[-1])
    records = metrics["retention"]["records"]
    assert [record["stage"] for record in records] == ["start", "language", "concept", "alignment"]
    # The text path trains in the first stage, is frozen in the second, and its attention trains
    # in the third: between the two records around the second stage nothing may move.
    assert records[1]["perplexity"] == records[2]["perplexity"]
    assert records[2]["perplexity"] != records[3]["perplexity"]
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000

    again = run("fit", str(recipe_file), cwd=tmp_path)
    assert again.returncode == 2
    assert "--resume" in again.stderr
    assert len(again.stderr.splitlines()) == 1

    picture = str(tmp_path / "0.png")
    asked = run("generate", "run", "--prompt", "what color?", "--image", picture, cwd=tmp_path)
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.strip()
    said = run("chat", "run", "--image", picture, cwd=tmp_path, stdin="what color?\nwhy?\n/quit\n")
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[0].strip() == asked.stdout.strip()

    torn = tmp_path / "torn.png"
    torn.write_bytes((tmp_path / "0.png").read_bytes()[:40])
    for bad in (str(torn), "nowhere.png"):
        failed = run("generate", "run", "--prompt", "?", "--image", bad, cwd=tmp_path)
        assert failed.returncode == 2
        assert len(failed.stderr.splitlines()) == 1
        assert Path(bad).name in failed.stderr


def test_full_disk_loses_nothing(recipe_file: Path, tmp_path: Path) -> None:
    whole = run("fit", str(recipe_file), f"out={tmp_path}/whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    begun = run("fit", str(recipe_file), "trainer.max_steps=6", cwd=tmp_path)
    assert begun.returncode == 0, begun.stderr
    newest = latest(tmp_path / "run" / "checkpoints")
    assert newest is not None
    before = newest.read_bytes()

    size = newest.stat().st_size // 2
    failed = run("fit", str(recipe_file), "--resume", cwd=tmp_path, file_bytes=size)
    assert failed.returncode == 2, failed.stderr
    errors = [line for line in failed.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "cannot write" in errors[0]
    assert "intact" in errors[0]
    assert "Traceback" not in failed.stderr
    assert newest.read_bytes() == before
    assert not list((tmp_path / "run").rglob("*.tmp"))

    resumed = run("fit", str(recipe_file), "--resume", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert step_of(latest(tmp_path / "run" / "checkpoints")) == 14  # type: ignore[arg-type]
    one = load_file(tmp_path / "whole" / "model" / "model.safetensors")
    two = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


def test_answer_longer_than_the_sequence_is_counted(recipe_file: Path, tmp_path: Path) -> None:
    lines = (tmp_path / "pictures.jsonl").read_text().splitlines()
    record = json.loads(lines[0])
    record.update(id="endless", answer="red " * 200)
    torn = dict(json.loads(lines[1]), id="torn", image="torn.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "0.png").read_bytes()[:40])
    lost = dict(json.loads(lines[2]), id="lost", image="lost.png")
    lines += [json.dumps(each) for each in (record, torn, lost)]
    (tmp_path / "pictures.jsonl").write_text("\n".join(lines) + "\n")
    done = run("fit", str(recipe_file), "trainer.max_steps=5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "jsonl/train: 2 skipped" in done.stdout
    assert "data.pictures: 1 skipped, e.g. endless" in done.stdout


def test_empty_data_set_stops_the_run(recipe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures.jsonl").write_text("")
    failed = run("fit", str(recipe_file), cwd=tmp_path)
    assert failed.returncode == 2
    assert len(failed.stderr.splitlines()) == 1
    assert "pictures.jsonl" in failed.stderr
