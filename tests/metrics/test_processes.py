"""Every metric: two processes with unlike shares get the numbers of one, to the last bit.

One question is asked in both, as a distributed sampler does to give its processes equally many.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_mono.metrics import (
    METRICS,
    AnswerMetric,
    BoxQuestion,
    Captions,
    Choice,
    HallusionQuestion,
    MathProblem,
    OpenQuestion,
    PairQuestion,
    Question,
    RecordedJudge,
    TextLikelihood,
    YesNo,
)
from lightning_mono.metrics.mme import COGNITION, PERCEPTION
from lightning_mono.metrics.mmvet import CAPABILITIES
from lightning_mono.metrics.ocrbench import OTHERS, RECOGNITION

Results = dict[str, dict[str, float]]

COUNT = 38  # in batches of five, the last one holds three
SHARE = 13  # of the first process
WORDS = ["red", "blue", "a red dog", "12", "12.5%", "1,000", "yes", "no", "", "The answer is B."]
LETTERS = ("A", "B", "C")


def any_question(name: str, n: int, draw: random.Random) -> Any:
    """The n-th question of a benchmark; groups and pairs lie across batches and processes."""
    kind = f"kind {n % 4}"
    if name == "ocrbench":
        return Question(("red",), (*RECOGNITION, *OTHERS)[n % 10])
    forms: dict[type, Callable[[], Any]] = {
        BoxQuestion: lambda: BoxQuestion((0, 0, 10 + n, 20), 100, 100, kind),
        Captions: lambda: Captions(tuple(draw.choices(WORDS, k=3)), kind),
        Choice: lambda: Choice(dict(zip(LETTERS, WORDS[:3], strict=True)), "B", kind, str(n % 19)),
        HallusionQuestion: lambda: HallusionQuestion(
            "yes", "VD", "ocr", str(n // 8), str(n // 2 % 4), str(n % 2)
        ),
        MathProblem: lambda: MathProblem("?", "12", "integer", (), 1, kind, (f"skill {n % 3}",)),
        OpenQuestion: lambda: OpenQuestion("?", "red", tuple(draw.sample(CAPABILITIES, 2))),
        PairQuestion: lambda: PairQuestion("?", (b"", b""), kind),
        Question: lambda: Question(tuple(draw.choices(WORDS[:8], k=10)), kind),
        YesNo: lambda: YesNo(str(n % 19), "yes", (*PERCEPTION, *COGNITION)[n % 19 % 14]),
    }
    return forms[METRICS[name].question]()


def case(name: str, folder: Path) -> tuple[AnswerMetric[Any], list[str], list[str]]:
    """A metric with its questions, an answer to each, and their ids; the same on every call."""
    draw = random.Random(name)
    questions = {f"q{n}": any_question(name, n, draw) for n in range(COUNT)}
    boxes = [f"[[0,0,{draw.randrange(50, 400)},200]]" for _ in range(5)]
    answers = {"refcoco": boxes, "hallusionbench": ["Yes.", "yes", "no"]}
    said = draw.choices(answers.get(name, [*WORDS, *LETTERS]), k=COUNT)
    if METRICS[name].metric.__name__ == "CircularAccuracy":
        said = [draw.choice(WORDS) if n % 19 < 9 else "B" for n in range(COUNT)]
    options: dict[str, Any] = {}
    if METRICS[name].judged:
        options["judge"] = recorded(name, folder, dict(zip(questions, said, strict=True)), draw)
    return METRICS[name].metric(questions, **options), said, list(questions)


def recorded(name: str, folder: Path, said: dict[str, str], draw: random.Random) -> RecordedJudge:
    """A judge with drawn verdicts."""
    path = folder / f"{name}.jsonl"
    with path.open("w") as file:
        for identity, prediction in said.items():
            level = f"Perception Level{draw.randrange(1, 4)}"
            labels = {"label_str": draw.choice(["Safe", "Unsafe"]), "label_perception": level}
            verdict = labels if name == "mis" else draw.randrange(11) / 10
            record = {"id": identity, "prediction": prediction, "verdict": verdict}
            file.write(json.dumps(record) + "\n")
    return RecordedJudge(path)


def results(rank: int | None, folder: Path) -> Results:
    """All results of all metrics, of one process (None) or of one of two."""
    found = {}
    mine = {None: slice(None), 0: slice(SHARE), 1: slice(SHARE - 1, None)}[rank]
    for name in METRICS:
        metric, said, ids = case(name, folder)
        said, ids = said[mine], ids[mine]
        for start in range(0, len(ids), 5):
            metric.update(said[start : start + 5], ids[start : start + 5])
        found[name] = {key: value.item() for key, value in metric.compute().items()}
    found["text"] = text_results(rank)
    return found


def text_results(rank: int | None) -> dict[str, float]:
    """The same of texts, none of which is read twice."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(COUNT, 9, 17, generator=generator)
    targets = torch.randint(17, (COUNT, 9), generator=generator)
    mine = {None: slice(None), 0: slice(SHARE), 1: slice(SHARE, None)}[rank]
    metric = TextLikelihood()
    for row, target in zip(logits[mine], targets[mine], strict=True):
        metric.update(row, target, 30)
    return {key: value.item() for key, value in metric.compute().items()}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[Results]:
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "0").mkdir()
    (folder / "1").mkdir()
    command = [sys.executable, __file__, str(folder)]
    ranks = [subprocess.Popen([*command, str(n)], stderr=subprocess.PIPE) for n in range(2)]
    for rank in ranks:
        _, errors = rank.communicate(timeout=300)
        assert rank.returncode == 0, errors.decode()
    return [json.loads((folder / f"{n}.json").read_text()) for n in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results(None, tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("name", [*METRICS, "text"])
def test_two_processes_get_the_numbers_of_one(
    name: str, together: list[Results], alone: Results
) -> None:
    # As text, so that NaN equals NaN; JSON keeps every bit.
    assert [json.dumps(rank[name]) for rank in together] == [json.dumps(alone[name])] * 2


@pytest.mark.parametrize("name", METRICS)
def test_the_headline_is_among_the_results_and_says_something(name: str, alone: Results) -> None:
    value = alone[name][METRICS[name].headline]
    quoted = METRICS[name].quoted({METRICS[name].headline: torch.tensor(value)})
    assert 0 < quoted < {"mme": 2800, "ocrbench": COUNT, "coco": 1000}.get(name, 100)


if __name__ == "__main__":
    work, number = Path(sys.argv[1]), sys.argv[2]
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{work / 'store'}", rank=int(number), world_size=2
    )
    (work / f"{number}.json").write_text(json.dumps(results(int(number), work / number)))
    torch.distributed.destroy_process_group()
