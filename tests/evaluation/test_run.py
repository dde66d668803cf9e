"""Reading a run's folder: resumed runs count once, and broken files are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_mono.errors import DataError
from lightning_mono.evaluation.report.run import read_journal, read_run

from .made_runs import STAGES, journal, write_journal


def test_stages_and_steps_are_those_that_were_run(tmp_path: Path) -> None:
    write_journal(tmp_path, journal(STAGES))
    found = read_journal(tmp_path / "journal.jsonl")
    assert [(s.name, s.start, s.end) for s in found.stages] == [
        ("concept", 0, 60),
        ("alignment", 60, 150),
        ("instruction", 150, 400),
    ]
    for stage in found.stages:
        steps = found.in_stage(stage)
        assert len(steps) == STAGES[stage.name][0]
        assert {step.stage for step in steps} == {stage.name}


def test_a_resumed_run_reads_like_one_that_was_never_killed(tmp_path: Path) -> None:
    whole = journal(STAGES)
    kill = next(i for i, r in enumerate(whole) if r["event"] == "step" and r["step"] == 97)
    back = next(i for i, r in enumerate(whole) if r["event"] == "step" and r["step"] == 80)
    entered = next(r for r in whole if r["event"] == "stage" and r["stage"] == "alignment")
    spoilt = [{**r, "loss": 99.0} if r.get("step", 0) >= 80 else r for r in whole[: kill + 1]]
    again = [{**entered, "step": 79, "resumed": True}, *whole[back:]]
    write_journal(tmp_path / "whole", whole)
    write_journal(tmp_path / "resumed", spoilt + again)
    expected = read_journal(tmp_path / "whole" / "journal.jsonl")
    assert read_journal(tmp_path / "resumed" / "journal.jsonl") == expected


def test_seconds_of_a_part_add_up_over_its_attempts(tmp_path: Path) -> None:
    part = {"event": "part", "name": "prepare", "seconds": 2.0}
    write_journal(tmp_path, [part, part])
    assert read_journal(tmp_path / "journal.jsonl").parts == {"prepare": 4.0}


def test_a_line_torn_by_a_kill_is_passed_over_and_counted(tmp_path: Path) -> None:
    write_journal(tmp_path, journal(STAGES))
    path = tmp_path / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:50], lines[50][:17] + "\n", *lines[50:]]))
    found = read_journal(path)
    assert found.torn_lines == 1
    assert len(found.steps) == 400


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"journal\.jsonl: no such file; is .* the folder of a run"):
        read_run(tmp_path)
    write_journal(tmp_path, [{"event": "step", "step": 1}])
    with pytest.raises(DataError, match="line 1: a step record without 'stage'"):
        read_run(tmp_path)
    write_journal(tmp_path, [])
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(DataError, match=r"metrics\.json: not JSON"):
        read_run(tmp_path)
