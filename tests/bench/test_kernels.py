"""The kernel benchmark as a user runs it: table, JSON, picture, and one line where it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lightning_mono import cli
from lightning_mono.bench.cases import Case, Shape
from lightning_mono.bench.kernels import bench
from lightning_mono.bench.plot import AXES, along
from lightning_mono.bench.table import HEADER, table

Captured = pytest.CaptureFixture[str]
TINY = [
    *("bench", "kernels", "--shape", "8,16", "16,24", "--tokens", "12", "--visual-share", "0.75"),
    *("--run-length", "4", "1", "--repeats", "2", "--device", "cpu"),
]


pytestmark = pytest.mark.usefixtures("small_machine")


def test_json_and_picture(tmp_path: Path, capsys: Captured) -> None:
    assert cli.main([*TINY, "--json", "--out", str(tmp_path / "new")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "new" / "kernels.json").read_text())
    assert set(printed) == {
        *("device", "dtype", "torch", "threads", "load", "rounds", "machine", "skipped", "cases"),
    }
    assert printed["dtype"] == "float32"
    assert "CUDA" in printed["skipped"]["triton"]
    assert [case["case"]["shape"]["name"] for case in printed["cases"]] == ["8,16", "8,16", "16,24"]
    for measured in printed["cases"]:
        _check(measured, printed["machine"])
    with Image.open(tmp_path / "new" / "kernels.png") as picture:
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 24)
    assert picture.width > 800
    assert len(colours or []) > 20


def _check(measured: dict[str, Any], machine: dict[str, float]) -> None:
    """Every figure of a case follows from its samples and its work."""
    case, results = measured["case"], {r["kernel"]: r for r in measured["results"]}
    assert (case["tokens"], case["visual_tokens"]) == (12, 9)
    assert case["visual_runs"] == {4: 3, 1: 3}[case["run"]]
    assert set(results) == {"bare GEMM", "masked_dense", "gathered", "grouped"}
    assert 0 < measured["copies"] < 10
    floors = [
        max(work["flops"] / machine["flops"], work["bytes"] / machine["bytes"])
        for work in (measured["forward"], measured["backward"])
    ]
    for result in results.values():
        mean = [sum(column) / 2 for column in zip(*result["samples"], strict=True)]
        assert [result["forward_s"], result["both_s"]] == pytest.approx(mean)
        assert result["forward_roofline"] == pytest.approx(floors[0] / mean[0])
        assert result["both_roofline"] == pytest.approx(sum(floors) / mean[1])
        limit, oracle = results["bare GEMM"]["samples"], results["masked_dense"]["samples"]
        for part, name in enumerate(("forward", "both")):
            own = [sample[part] for sample in result["samples"]]
            to_limit = sum(o / x[part] for o, x in zip(own, limit, strict=True)) / 2
            speedup = sum(x[part] / o for o, x in zip(own, oracle, strict=True)) / 2
            assert result[f"{name}_to_limit"] == pytest.approx(to_limit)
            assert result[f"{name}_speedup"] == pytest.approx(speedup)


def test_the_table_has_a_line_a_kernel(capsys: Captured) -> None:
    assert cli.main([*TINY, "--kernels", "gathered"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    assert tuple(rows[0]) == HEADER
    assert [row[4] for row in rows[2:]] == ["bare GEMM", "gathered"] * 3
    assert all(row[HEADER.index("x faster, both")] == "-" for row in rows[2:])
    assert "on copies" in lines[-1]
    assert len({len(line) for line in lines if line.startswith("|")}) == 1


def test_a_panel_shows_what_differs_in_its_way_alone() -> None:
    small, large = Shape("small", 8, 16), Shape("large", 16, 24)
    cases = [Case(small, 8, 0.5, 2), Case(small, 4, 0.5, 2), Case(large, 8, 0.5, 2)]
    report = bench(
        cases, kernels=["gathered"], device=torch.device("cpu"), dtype=torch.float32, rounds=1
    )
    chosen = {axis.title: [m.case for m in along(report, axis)] for axis in AXES}
    assert chosen == {
        "tokens": [cases[1], cases[0]],
        "share of visual tokens": [cases[0]],
        "length of a visual run": [cases[0]],
        "FFN": [cases[0], cases[2]],
    }
    assert report.skipped == {}
    assert "not run" not in table(report)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "what"),
        (["disks"], "disks"),
        (["kernels", "--shape", "3b"], "135m, 2b, 7b"),
        (["kernels", "--visual-share", "2"], "2 must be from 0 to 1"),
        (["kernels", "--tokens", "0"], "0 must be 1 or more"),
        (["kernels", "--kernels", "fast"], "'fast'"),
        (["kernels", "--kernels", "triton", "--device", "cpu"], "triton"),
        (["kernels", "--out", "/dev/null/x"], "/dev/null/x: cannot be made"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    arguments: list[str], says: str, capsys: Captured
) -> None:
    try:
        status = cli.main(["bench", *arguments])
    except SystemExit as end:
        status = int(end.code or 0)
    captured = capsys.readouterr()
    assert (status, captured.out) == (2, "")
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith("error: ")
    assert says in captured.err


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["bench", "kernels", "--device", "cuda"]) == 2
    assert "torch sees no GPU" in capsys.readouterr().err


def test_the_options_are_read_without_torch() -> None:
    code = "import sys, lightning_mono.bench.arguments as a; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
