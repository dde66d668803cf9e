"""The verb from files to results: one process or several, judged or not, told on one page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lightning_mono import cli
from lightning_mono.benchmarks.shipped import SHIPPED

from .conftest import Write, make_assistant

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny model."""
    folder = tmp_path_factory.mktemp("model")
    make_assistant().save(folder)
    return str(folder)


def evaluate(capsys: Captured, *words: str) -> dict[str, Any]:
    assert cli.main(["evaluate", *words, "--json"]) == 0
    results: dict[str, Any] = json.loads(capsys.readouterr().out)
    return results


def refused(capsys: Captured, *words: str) -> str:
    assert cli.main(["evaluate", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    return captured.err


def samples(results: dict[str, Any], number: int = 0) -> list[dict[str, Any]]:
    file = Path(results["benchmarks"][number]["folder"], "samples.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_results_are_those_of_the_answers(
    model: str, questions: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = str(tmp_path / "out")
    results = evaluate(capsys, model, "--benchmark", str(questions), "--out", out)
    assert results == json.loads(Path(out, "results.json").read_text())
    (found,) = results["benchmarks"]
    told = samples(results)
    assert [each["id"] for each in told] == [f"q{n}" for n in range(11)]
    right = [each["prediction"].strip().lower() in each["answer"].split(" / ") for each in told]
    assert [each["right"] for each in told] == right
    assert found["quoted"] == pytest.approx(100 * sum(right) / 11)
    assert found["questions"] == 11
    assert found["part_of"] is None
    # "yes" is right for all; of two answers to one question the first counts.
    assert found["baselines"] == {
        "most frequent answer": 100.0,
        "most frequent of its kind": 100.0,
    }
    assert found["results"]["accuracy/is"] is not None
    assert told[0]["prompt"] == "is it red? "
    assert len({each["prediction"] for each in told}) > 3


def test_the_table_says_what_is_a_part(
    model: str, questions: Path, tmp_path: Path, capsys: Captured
) -> None:
    words = [model, "--benchmark", str(questions), "--out", str(tmp_path / "out"), "--limit", "4"]
    assert cli.main(["evaluate", *words]) == 0
    out = capsys.readouterr().out
    assert re.search(r"tiny +accuracy +\d+\.\d .* 4 \(part\)", out)
    assert "tiny: a part, the first 4 of 11 questions; its figures are of that part." in out
    assert evaluate(capsys, *words)["benchmarks"][0]["part_of"] == 11


def test_two_processes_get_the_numbers_of_one(
    model: str, questions: Path, tmp_path: Path, capsys: Captured
) -> None:
    """Batches of three, of which one process asks the last, with two questions in it."""
    common = [model, "--benchmark", str(questions), "--batch-size", "3"]
    alone = evaluate(capsys, *common, "--out", str(tmp_path / "one"))
    both = evaluate(capsys, *common, "--out", str(tmp_path / "two"), "--devices", "2")
    shares = [
        [json.loads(line)["id"] for line in file.read_text().splitlines()]
        for file in sorted(Path(both["benchmarks"][0]["folder"]).glob("answers-*.jsonl"))
    ]
    assert [len(share) for share in shares] == [6, 5]
    assert sorted([*shares[0], *shares[1]]) == sorted(f"q{n}" for n in range(11))
    assert samples(both) == samples(alone)
    page, other = (Path(results.pop("page")) for results in (alone, both))
    assert page.read_text() == other.read_text()
    for results in (alone, both):
        del results["benchmarks"][0]["folder"]
    assert json.dumps(both) == json.dumps(alone)


@pytest.mark.slow
def test_what_one_of_several_processes_cannot_read_is_one_line(
    model: str, write: Write, tmp_path: Path
) -> None:
    records = [{"id": n, "question": "what? " * n, "answer": "a"} for n in range(1, 5)]
    path = write(
        {"benchmark": "b", "scoring": "gqa"}, {**records[3], "image": "cut.png"}, *records[:3]
    )
    (tmp_path / "cut.png").write_bytes((tmp_path / "red.png").read_bytes()[:-30])
    command = [sys.executable, "-m", "lightning_mono", "evaluate", model, "--benchmark", str(path)]
    command += ["--devices", "2", "--batch-size", "1", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {path}: 4: cannot read image")


def test_judged_benchmarks_need_a_judge_and_keep_its_verdicts(
    model: str, write: Write, tmp_path: Path, capsys: Captured
) -> None:
    record = {"id": 1, "question": "what?", "answer": "a<AND>b", "capabilities": ["ocr"]}
    path = write({"benchmark": "vet", "scoring": "mmvet", "max_new_tokens": 4}, record)
    common = [model, "--benchmark", str(path), "--out", str(tmp_path / "out")]
    assert "vet is scored by a judge: give --judge a model" in refused(capsys, *common)
    assert "no/verdicts.jsonl" in refused(capsys, *common, "--judge", "no/verdicts.jsonl")

    judged = evaluate(capsys, *common, "--judge", model)
    (found,) = judged["benchmarks"]
    verdicts = Path(found["folder"], "verdicts.jsonl")
    (verdict,) = map(json.loads, verdicts.read_text().splitlines())
    said = samples(judged)[0]["prediction"]
    assert (verdict["id"], verdict["prediction"]) == ("1", said)
    assert found["results"]["unjudged"] == 1, "a tiny model gives no grade"

    own = tmp_path / "own_verdicts.jsonl"
    own.write_text(json.dumps({**verdict, "verdict": 0.7}) + "\n")
    graded = evaluate(capsys, *common, "--judge", str(own))
    assert graded["benchmarks"][0]["quoted"] == pytest.approx(70)
    own.write_text(json.dumps({**verdict, "prediction": "else", "verdict": 0.7}) + "\n")
    assert "have the new answer judged" in refused(capsys, *common, "--judge", str(own))


class Page(HTMLParser):
    """Finds what a page loads, and what it shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href") and value:
                self.loaded.append(value)
        assert tag not in ("script", "link", "iframe")

    def handle_data(self, data: str) -> None:
        self.words.append(" ".join(data.split()))


def test_one_page_shows_samples_of_all_and_loads_nothing(
    model: str, questions: Path, write: Write, tmp_path: Path, capsys: Captured
) -> None:
    head = {"benchmark": "captions", "scoring": "coco", "max_new_tokens": 4}
    own = write(
        head, {"id": "<b>", "image": "blue.png", "captions": ["a <i>", "b"]}, name="c.jsonl"
    )
    words = [model, "--benchmark", str(questions), "--benchmark", str(own)]
    results = evaluate(capsys, *words, "--out", str(tmp_path / "out"))
    page = Page(Path(results["page"]).read_text(encoding="utf-8"))
    assert all(each.startswith(("data:image/", "#")) for each in page.loaded)
    assert {"tiny", "captions"} <= set(page.words)
    assert "a <i> / b" in page.words, "what a record says is text, not markup"
    pictures = [each for each in page.loaded if each.startswith("data:")]
    shown = {
        prompt for prompt in page.words if prompt in {s["prompt"].strip() for s in samples(results)}
    }
    assert len(pictures) >= 6
    assert len(shown) >= 5
    assert results["benchmarks"][1]["results"]["exact"] == 0
    assert results["benchmarks"][1]["baselines"] == {}, "no caption is right for all pictures"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["/no/where", "--prompt", "a"], "--prompt goes with --benchmark"),
        (["/no/where", "--fresh"], "--fresh goes with --benchmark"),
        (["/no/where", "--devices", "2"], "--devices goes with --benchmark"),
        (["/no/where", "--benchmark", "{file}"], "/no/where is no model folder"),
        (["/no/where", "--benchmark", "easy_vq"], "did you mean 'easy_vqa'?"),
        (["/no/where", "--benchmark", "/no.jsonl"], "/no.jsonl: cannot be read: No such file"),
        (["/no/where", "--benchmark", "/no.csv"], "no benchmark '/no.csv'"),
        (["/no/where", "--benchmark", "{file}", "--prompt", "{x}"], "no field {x}"),
        (["/no/where", "--benchmark", "{file}", "--benchmark", "{file}"], "two are called 'tiny'"),
        (["/no/where", "--benchmark", "{file}", "--judge", "/no/judge"], "/no/judge is no model"),
        (["{model}", "--benchmark", "{file}", "--out", "{file}/out"], "cannot be made: Not a dir"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    words: list[str], says: str, model: str, questions: Path, capsys: Captured
) -> None:
    given = [word.replace("{file}", str(questions)).replace("{model}", model) for word in words]
    assert says in refused(capsys, *given)


def test_ls_names_the_benchmarks_that_ship(capsys: Captured) -> None:
    assert cli.main(["ls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["benchmarks"] == list(SHIPPED)
    assert cli.main(["ls"]) == 0
    text = capsys.readouterr().out
    for name, shipped in SHIPPED.items():
        assert re.search(rf"{name} +{re.escape(shipped.purpose)}", text)
