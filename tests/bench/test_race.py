"""Benchmarks of models as a user runs them: tables, JSON, pictures, and refusals in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from PIL import Image

from lightning_mono import cli
from lightning_mono.bench import prefill, race, reference
from lightning_mono.bench.names import CONTESTANTS, TURN
from lightning_mono.bench.prefill import Prefill
from lightning_mono.bench.prompts import Prompt
from lightning_mono.bench.race_table import whole
from lightning_mono.bench.subject import Subject
from lightning_mono.errors import UserError
from lightning_mono.model import MonoModel

from .conftest import MACHINE

Captured = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("small_machine")


def _tiny(kind: str, recipe: str, *more: str) -> list[str]:
    shapes = ["--recipe", recipe, "--layers", "2", "--lengths", "20", "12", "--text", "8"]
    return ["bench", kind, *shapes, "--rounds", "3", "--device", "cpu", *more]


@pytest.mark.parametrize("kind", ["prefill", "decode", "train"])
def test_json_and_picture(kind: str, recipe: str, tmp_path: Path, capsys: Captured) -> None:
    rows = ["--concurrency", "1", "2"]
    arguments = _tiny(kind, recipe, "--json", "--no-memory", "--out", str(tmp_path / "new"), *rows)
    assert cli.main(arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "new" / f"{kind}.json").read_text())
    assert (printed["kind"], printed["layers"], printed["of_layers"]) == (kind, 2, 2)
    assert printed["skipped"] == {}
    prompts = [(case["prompt"]["tokens"], case["prompt"]["batch"]) for case in printed["cases"]]
    assert prompts == [(20, 1), (12, 1), (20, 2), (12, 2)]
    for case in printed["cases"]:
        _check(kind, case)
    with Image.open(tmp_path / "new" / f"{kind}.png") as picture:
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 24)
    assert picture.width > 800
    assert len(colours or []) > 20


def _check(kind: str, case: dict[str, Any]) -> None:
    """Every figure of a case follows from its samples and its floors."""
    results = {result["contestant"]: result for result in case["results"]}
    assert tuple(results) == CONTESTANTS[kind]
    part, steps = (1, 1) if kind == "train" else (0, TURN if kind == "decode" else 1)
    seconds = {
        name: [sample[part] / steps for sample in result["samples"]]
        for name, result in results.items()
    }
    prompt = case["prompt"]
    assert prompt["visual"] == prompt["tokens"] - 8
    tokens = prompt["batch"] * (1 if kind == "decode" else prompt["tokens"])
    for name, result in results.items():
        own = seconds[name]
        assert len(own) == 3
        assert result["seconds"] == median(own)
        assert result["tokens_per_s"] == pytest.approx(tokens / median(own))
        ratios = [one / ours for one, ours in zip(own, seconds["ours"], strict=True)]
        assert result["to_ours"] == pytest.approx(median(ratios))
        assert result["peak"] is None
        if name.startswith("twin"):
            assert result["reached"] == {}
        else:
            for floor, least in case["floors"].items():
                assert result["reached"][floor] == pytest.approx(least / median(own))
        if name in ("ours", "twin"):
            assert result["difference"] is None
        else:
            assert result["difference"] < 1e-5


def test_the_table_has_a_line_a_contestant(recipe: str, capsys: Captured) -> None:
    assert cli.main(_tiny("prefill", recipe, "--no-memory", "--contestants", "reference")) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    assert rows[0][:7] == ["tokens", "visual", "rows", "contestant", "s", "tokens/s", "x ours"]
    assert [row[:4] for row in rows[2:]] == [
        [tokens, visual, "1", name]
        for tokens, visual in (("20", "12"), ("12", "4"))
        for name in ("ours", "reference")
    ]
    assert [row[6] for row in rows[2:] if row[3] == "ours"] == ["1.00", "1.00"]
    assert len({len(line) for line in lines if line.startswith("|")}) == 1


def test_a_profile_is_of_all_the_time(recipe: str, capsys: Captured) -> None:
    more = ["--no-memory", "--contestants", "ours", "--profile"]
    assert cli.main(_tiny("decode", recipe, *more, "--json")) == 0
    profile = json.loads(capsys.readouterr().out)["profile"]
    assert sum(operator["share"] for operator in profile) == pytest.approx(1)
    calls = {operator["name"]: operator["calls"] for operator in profile}
    assert sum(calls.values()) > 50 * TURN
    assert cli.main(_tiny("decode", recipe, *more)) == 0
    assert "of its time" in capsys.readouterr().out


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own(recipe: str, capsys: Captured) -> None:
    arguments = _tiny("train", recipe, "--json", "--contestants", "ours")
    assert cli.main(arguments) == 0
    longest, shortest = json.loads(capsys.readouterr().out)["cases"]
    assert shortest["results"][0]["peak"] is None
    peak = longest["results"][0]["peak"]
    parameters = Subject.of(recipe, [], 2, torch.device("cpu"), torch.float32)
    model = Prefill(parameters).models.mono
    assert peak["weights"] == sum(p.numel() * 4 for p in model.parameters())
    # Gradients of what learns are there at the least.
    learned = sum(
        p.numel() for n, p in model.named_parameters() if "ffn.visual" in n or "patchifier" in n
    )
    assert peak["beside"] > 4 * learned


def test_contestants_that_differ_are_not_compared(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = reference.forward

    def careless(model: MonoModel, *inputs: Any, **more: Any) -> Any:
        logits, cache = honest(model, *inputs, **more)
        return logits * 1.001, cache

    monkeypatch.setattr(reference, "forward", careless)
    with pytest.raises(UserError, match=r"reference differs from ours by 1.0e-03"):
        _race(subject, rounds=1)


def _race(subject: Subject, rounds: int, seconds: float = 1e9) -> race.Report:
    return race.race(
        Prefill(subject),
        [Prompt(20, 8)],
        names=("ours", "ours-all-positions", "reference"),
        skipped={},
        rounds=rounds,
        seconds=seconds,
        peaks={},
    )


def test_rounds_end_with_their_time(subject: Subject) -> None:
    report = _race(subject, rounds=50, seconds=0.0)
    assert {len(result.samples) for result in report.cases[0].results} == {1}


def test_times_are_carried_on_to_all_layers(subject: Subject) -> None:
    """Of 4 s at all positions, ours spares 1 s in the last layer, in 2 layers and in 6."""
    report = _race(subject, rounds=1)
    case = report.cases[0]
    taken = {"ours": 3.0, "ours-all-positions": 4.0, "reference": 8.0, "twin": 5.0}
    results = [
        replace(case.results[0], contestant=name, seconds=seconds)
        for name, seconds in taken.items()
    ]
    said = whole(replace(report, of_layers=6), replace(case, results=results))
    assert said is not None
    assert said.endswith("ours 11.0 s; reference 2.18 x, twin 1.55 x")  # 11, 24 and 17 s


def test_floors_follow_from_the_machine(subject: Subject) -> None:
    kind, prompt = Prefill(subject), Prompt(20, 8)
    work = prefill.floor.prefill(subject.config, prompt)
    assert kind.floors(prompt, MACHINE) == {
        "GEMM": work.every / 1e9,
        "GEMM, needed": work.needed / 1e9,
    }


@pytest.mark.parametrize(
    ("kind", "more", "says"),
    [
        ("prefill", ["--lengths", "21"], "20 would do"),
        ("prefill", ["--recipe", "nothing"], "nothing"),
        ("decode", ["--layers", "3"], "--layers 3: tiny has 2"),
        ("decode", ["--contestants", "fastest"], "'fastest'"),
        ("train", ["--contestants", "twin"], "'twin'"),
        ("train", ["--seconds", "0"], "above 0"),
        ("train", ["model.sratch.layers=3"], "sratch"),
        ("prefill", ["--out", "/dev/null/x"], "/dev/null/x: cannot be made"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    kind: str, more: list[str], says: str, recipe: str, capsys: Captured
) -> None:
    try:
        status = cli.main([*_tiny(kind, recipe), *more])
    except SystemExit as end:
        status = int(end.code or 0)
    captured = capsys.readouterr()
    assert (status, captured.out) == (2, "")
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith("error: ")
    assert says in captured.err
