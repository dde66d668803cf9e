"""The command line: help with examples, JSON where asked, one clear line where something fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_mono import cli
from lightning_mono.build import open_source
from lightning_mono.errors import DataError
from lightning_mono.recipe import load_recipe, shipped_recipes
from lightning_mono.recipe.schema import SourceSection
from lightning_mono.testing import TINY_RECIPE, tiny_model, write_tiny_recipe

from .data.conftest import png

VERBS = (
    "fit",
    "evaluate",
    "ablate",
    "retention",
    "generate",
    "chat",
    "maps",
    "convert",
    "validate",
    "ls",
    "show",
    "plan",
    "bench",
    "prepare",
    "serve",
)

Captured = pytest.CaptureFixture[str]


def _refused(arguments: list[str], capsys: Captured) -> str:
    """Runs a command that fails, and gives its one line."""
    try:
        status = cli.main(arguments)
    except SystemExit as end:
        status = int(end.code or 0)
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def test_the_installed_command_lists_every_verb() -> None:
    command = Path(sys.executable).parent / "lightning-mono"
    done = subprocess.run(
        [str(command), "--help"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert set(VERBS) == set(re.findall(r"^    ([a-z]+)", done.stdout, re.MULTILINE))


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_helps_with_an_example(verb: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([verb, "--help"])
    assert end.value.code == 0
    assert f"example: lightning-mono {verb}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "VERB"),
        (["frobnicate"], "frobnicate"),
        (["show"], "recipe"),
        (["show", "quikstart"], "did you mean 'quickstart'"),
        (["show", "nothing.yaml"], "no such file"),
        (["show", "quickstart", "optim.lrr=1"], "optim.lrr"),
        (["show", "quickstart", "seed"], "write key=value"),
        (["show", "quickstart", "--json", "--plain"], "not allowed"),
        (["show", "quickstart", "--frob"], "--frob"),
        (["ls", "a=b"], "a=b"),
        (["fit", "quickstart", "--resume", "--fresh"], "not allowed"),
        (["fit", "quickstart", "--resume", "trainer.kernel=gatherd"], "trainer.kernel"),
        (["evaluate", "/no/where"], "no run folder"),
        (["ablate", "placment"], "did you mean 'placement'"),
        (["ablate", "placement", "seed=3"], "give seeds with --seeds"),
        (["ablate", "placement", "optim.lrr=3"], "optim.lrr"),
        (["ablate", "placement", "--jobs", "0"], "--jobs: 0 must be 1 or more"),
        (["ablate", "placement", "--list", "--report"], "not allowed"),
        (["generate", "/no/where", "--prompt", "a"], "no model folder"),
        (["generate", "/no/where", "--prompt", "a", "--image", "/no.png"], "/no.png"),
        (["generate", "/no/where"], "--prompt"),
        (["generate", "/no/where", "--prompt", "a", "--top-p", "0"], "--top-p: 0 must be"),
        (["generate", "/no/where", "--prompt", "a", "--top-k", "-1"], "--top-k: -1 must be"),
        (["generate", "/no/where", "--prompt", "a", "--temperature", "nan"], "--temperature"),
        (["generate", "/no/where", "--prompt", "a", "--max-new-tokens", "0"], "0 must be 1"),
        (["generate", "/no/where", "--prompt", "a", "--top-k", "x"], "whole number"),
        (["chat", "/no/where"], "no model folder"),
        (["maps", "/no/where"], "--prompt"),
        (["maps", "/no/where", "--prompt", "a"], "no model folder"),
        (["maps", "/no/where", "--prompt", "a", "--token", "-1"], "-1 must be 0 or more"),
        (["maps", "/no/where", "--prompt", "a", "--image", "/no.png"], "/no.png: cannot be read"),
        (["plan", "quikstart"], "did you mean 'quickstart'"),
        (["plan", "quickstart", "--gpu", "h10"], "--gpu h10: not in the table; did you mean h100?"),
        (["plan", "quickstart", "--utilisation", "0"], "--utilisation: 0 must be above 0"),
        (["plan", "quickstart", "--gpu", "h100", "trainer.devices=0"], "trainer.devices: 0"),
        (["plan", "quickstart", "trainer.strategy=ddp"], "trainer.strategy: 'ddp' is none of"),
        (["plan", "quickstart", "model.backbone=an/unknown", "model.scratch=null"], "an/unknown"),
        (["prepare", "a.json"], "out"),
        (["prepare", "/no/where", "out"], "cannot read /no/where: No such file"),
        (["prepare", "/no/where.csv", "out", "--format", "table"], "cannot read /no/where.csv"),
        (["prepare", "a.json", "out", "--format", "coco"], "invalid choice: 'coco'"),
        (["prepare", "a.json", "out", "--workers", "0"], "--workers: 0 must be 1 or more"),
        (["prepare", "a.json", "out", "--held-out", "2"], "--held-out: 2 must be above 0"),
        (["prepare", "a.json", "s3://bucket/out"], "s3://bucket/out is an address"),
        (["prepare", "s3://bucket/a.tar", "out"], "s3://bucket/a.tar is an address"),
    ],
)
def test_errors_are_one_line_and_exit_2(arguments: list[str], says: str, capsys: Captured) -> None:
    assert says in _refused(arguments, capsys)


def test_a_bare_model_says_what_it_lacks(tmp_path: Path, capsys: Captured) -> None:
    tiny_model().save_pretrained(tmp_path)
    assert "tokenizer.json is missing" in _refused(["chat", str(tmp_path)], capsys)


def test_bugs_are_not_dressed_up_as_user_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(cli.ls, "run", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["ls"])


def test_every_line_of_an_error_and_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def two(arguments: object) -> int:
        raise DataError("first\nsecond")

    def interrupted(arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.ls, "run", two)
    assert cli.main(["ls"]) == 2
    assert capsys.readouterr().err == "error: first\nerror: second\n"
    monkeypatch.setattr(cli.ls, "run", interrupted)
    assert cli.main(["ls"]) == 130


def test_ls_names_what_ships(capsys: Captured) -> None:
    assert cli.main(["ls", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert list(listed["recipes"]) == list(shipped_recipes())
    assert all(listed["recipes"].values()), "a recipe has no first line that says its purpose"
    assert "smollm2-135m" in listed["backbones"]
    assert {"masked_dense", "gathered"} <= set(listed["kernels"])
    assert cli.main(["ls"]) == 0
    text = capsys.readouterr().out
    for names in listed.values():
        assert all(name in text for name in names)


def test_show_prints_every_value_and_its_origin(tmp_path: Path, capsys: Captured) -> None:
    path = write_tiny_recipe(tmp_path)
    command = ["show", str(path), "optim.lr=0.5"]
    assert cli.main([*command, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["recipe"]["optim"]["lr"] == 0.5
    assert shown["recipe"]["optim"]["eps"] == 1e-8
    assert shown["origins"]["optim.lr"] == "override optim.lr=0.5"
    assert shown["origins"]["name"] == str(path)
    assert cli.main(command) == 0
    assert "# override optim.lr=0.5" in capsys.readouterr().out
    assert cli.main([*command, "--plain"]) == 0
    plain = tmp_path / "plain.yaml"
    plain.write_text(capsys.readouterr().out)
    assert load_recipe(plain) == load_recipe(path, ["optim.lr=0.5"])


def test_overrides_may_stand_behind_options(tmp_path: Path, capsys: Captured) -> None:
    path = str(write_tiny_recipe(tmp_path))
    outputs = []
    for words in (["seed=7", "--json", "name=b"], ["--json", "seed=7", "name=b"]):
        assert cli.main(["show", path, *words]) == 0
        outputs.append(json.loads(capsys.readouterr().out))
    assert outputs[0] == outputs[1]
    assert (outputs[0]["recipe"]["seed"], outputs[0]["recipe"]["name"]) == (7, "b")


def test_validate_reports_each_recipe(tmp_path: Path, capsys: Captured) -> None:
    good = write_tiny_recipe(tmp_path)
    bad = tmp_path / "bad.yaml"
    bad.write_text(TINY_RECIPE.replace("last:1", "last:9").replace("kv_heads: 2", "kv_heads: 3"))
    deep = tmp_path / "deep.yaml"
    deep.write_text(TINY_RECIPE.replace("train: [patchifier, experts.ffn]", "train: [head]"))
    names = [str(good), str(bad), str(deep), "nobody"]
    assert cli.main(["validate", *names, "--json"]) == 2
    results = json.loads(capsys.readouterr().out)
    assert [result["recipe"] for result in results] == names
    assert [result["ok"] for result in results] == [True, False, False, False]
    assert [len(result["problems"]) for result in results] == [0, 2, 1, 1]
    assert cli.main(["validate", *names]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith("  ")] == [
        "ok",
        "broken",
        "broken",
        "broken",
    ]
    assert cli.main(["validate", str(good), "--set", "seed=x"]) == 2
    assert "seed" in capsys.readouterr().out


def test_validate_without_a_name_checks_all_that_ship(capsys: Captured) -> None:
    assert cli.main(["validate", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [result["recipe"] for result in results] == list(shipped_recipes())


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """A table of 40 pictures, of which one is missing and one no picture."""
    lines = ["image,caption"]
    for number in range(40):
        (tmp_path / f"{number}.png").write_bytes(png())
        lines.append(f"{number}.png,number {number}")
    (tmp_path / "7.png").unlink()
    (tmp_path / "9.png").write_text("no picture")
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    return tmp_path / "captions.csv"


def test_prepare_writes_what_a_recipe_reads_and_names_what_it_skipped(
    captions: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "out"
    command = ["prepare", str(captions), str(out), "--workers", "2"]
    assert cli.main([*command, "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert (report["folder"], report["source"]) == (str(out), "table")
    assert (report["samples"], report["images"], report["skipped_count"]) == (38, 38, 2)
    assert report["skipped_by_fault"] == {"missing file": 1, "unreadable image": 1}
    assert report["seconds"] > 0
    named = [json.loads(line)["id"] for line in (out / "skipped.jsonl").open()]
    assert named == [skip["id"] for skip in report["skipped"]] == ["row 8", "row 10"]
    store = open_source(SourceSection(path=str(out)))
    assert len(store) == 38
    assert store[0].exchanges[0].answer == "number 0"

    assert cli.main(command) == 0, "what is complete is found complete"
    text = capsys.readouterr().out
    assert f"{out}: 38 samples" in text
    assert "skipped 2" in text
    assert "missing file" in text
    assert "7.png" in text


def test_prepare_holds_pictures_out(captions: Path, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "out"
    assert cli.main(["prepare", str(captions), str(out), "--held-out", "0.3", "--json"]) == 0
    train, test = json.loads(capsys.readouterr().out)
    assert (train["folder"], test["folder"]) == (str(out / "train"), str(out / "test"))
    assert train["samples"] + test["samples"] == 38
    assert train["skipped_count"] + test["skipped_count"] == 2
    assert 3 < test["samples"] < 20


def test_prepare_says_in_one_line_what_it_cannot_do(
    captions: Path, tmp_path: Path, capsys: Captured
) -> None:
    folder, out = str(captions.parent), str(tmp_path / "out")
    assert "no column 'words'" in _refused(
        ["prepare", str(captions), out, "--caption-column", "words"], capsys
    )
    assert "has no option 'image_column'" in _refused(
        ["prepare", str(captions), out, "--format", "llava", "--image-column", "a"], capsys
    )
    (captions.parent / "more.json").write_text("[]")
    assert "holds table and llava; say which with --format" in _refused(
        ["prepare", folder, out], capsys
    )
    assert "no usable sample in llava/train" in _refused(
        ["prepare", folder, out, "--format", "llava"], capsys
    )
    (tmp_path / "taken").mkdir()
    assert "taken exists and is not table/train" in _refused(
        ["prepare", str(captions), str(tmp_path / "taken")], capsys
    )
    assert not Path(out).exists()


def test_a_closed_pipe_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "lightning_mono", "show", "quickstart"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
