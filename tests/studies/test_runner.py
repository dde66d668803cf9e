"""Runs are done once, go on after a kill to the same table, and do not fail together."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_mono import cli
from lightning_mono.recipe import load_recipe
from lightning_mono.studies import room
from lightning_mono.studies.room import slots

Write = Callable[..., Path]
COMMAND = [sys.executable, "-m", "lightning_mono", "ablate"]


def _arms(folder: Path) -> list[dict[str, str]]:
    """What the table of a study says, but for the time that it took."""
    lines = list(csv.DictReader(io.StringIO((folder / "rates/arms.csv").read_text())))
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_a_study_from_its_file_to_its_report(
    write_study: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One arm of two fails when it runs: its log says why, and the other is reported."""
    broken = "rate:\n    good: {}\n    bad: {data.text.sources.docs: {source: null, path: gone}}"
    path = write_study(("optim.lr: [0.01, 0.03]", broken), ('"0.01"', "good"), ("[0, 1]", "[0]"))
    out = tmp_path / "studies"
    command = ["ablate", str(path), "--out", str(out), "--jobs", "2"]
    assert cli.main([*command, "--list"]) == 0
    assert capsys.readouterr().out.count("to run ") == 2
    assert cli.main(command) == 2
    said = capsys.readouterr()
    assert "error: 1 of 2 runs failed" in said.err
    assert "[2/2]" in said.err
    (good, bad) = _arms(out)
    assert float(good["perplexity"]) > 1
    assert (bad["seeds"], bad["perplexity"]) == ("0", "")
    runs = list(csv.DictReader(io.StringIO((out / "rates/runs.csv").read_text())))
    assert "gone" in runs[1]["failure"]
    assert Path(runs[0]["run"], "model").is_dir()
    assert not Path(runs[0]["run"], "checkpoints").exists(), "a run that is done keeps its model"
    before = Path(runs[0]["run"], "metrics.json").stat().st_mtime_ns
    assert cli.main([*command, "--report"]) == 0, "reporting runs nothing, so nothing fails"
    assert Path(runs[0]["run"], "metrics.json").stat().st_mtime_ns == before


def test_nothing_done_is_nothing_to_report(
    write_study: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["ablate", str(write_study()), "--out", str(tmp_path), "--report"]) == 2
    assert "no run is done" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_study_ends_with_the_same_table(write_study: Write, tmp_path: Path) -> None:
    path = write_study()
    whole = [*COMMAND, str(path), "--jobs", "1", "--out"]
    subprocess.run([*whole, str(tmp_path / "whole")], check=True, capture_output=True, timeout=600)
    cut = tmp_path / "cut"
    study = subprocess.Popen([*whole, str(cut)], stderr=subprocess.DEVNULL, text=True)
    cells = cut / "cells"
    _until(lambda: len(list(cells.glob("*/metrics.json"))) == 1)
    _until(lambda: len(list(cells.glob("*/checkpoints/*.ckpt"))) > 0)
    study.send_signal(signal.SIGKILL)
    study.wait()
    _until(lambda: not _running(cells))
    done = {p: p.stat().st_mtime_ns for p in cells.glob("*/metrics.json")}
    assert 1 <= len(done) < 4
    subprocess.run([*whole, str(cut)], check=True, capture_output=True, timeout=600)
    assert {p: p.stat().st_mtime_ns for p in done} == done, "what was done was run again"
    assert _arms(cut) == _arms(tmp_path / "whole")


@pytest.mark.slow
def test_runs_end_with_a_study_that_is_interrupted(write_study: Write, tmp_path: Path) -> None:
    command = [*COMMAND, str(write_study()), "--jobs", "2", "--out", str(tmp_path / "out")]
    study = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    cells = tmp_path / "out/cells"
    _until(lambda: len(_running(cells)) == 2)
    study.send_signal(signal.SIGTERM)
    _, said = study.communicate(timeout=60)
    assert study.returncode == 130
    assert said.endswith("interrupted\n")
    assert not _running(cells)


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch, write_study: Write) -> None:
    recipe = load_recipe(write_study().parent / "tiny.yaml", ["trainer.accelerator=cpu"])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    free = 2**40
    monkeypatch.setattr("lightning_mono.studies.room._free_bytes", lambda: free)
    assert [s.environment for s in slots(recipe)] == [{"OMP_NUM_THREADS": "1"}] * 8
    assert [s.environment for s in slots(recipe, 2)] == [{"OMP_NUM_THREADS": "4"}] * 2
    free = 3 * room._needed(recipe) + 1
    assert [s.environment for s in slots(recipe)] == [{"OMP_NUM_THREADS": "2"}] * 3
    free = 0
    assert len(slots(recipe)) == 1, "one run is tried, whatever the system says"


def _running(cells: Path) -> list[int]:
    """Processes whose command names a run in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"fit" in words and any(word.startswith(bytes(cells)) for word in words):
            found.append(int(path.parent.name))
    return found


def _until(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)
