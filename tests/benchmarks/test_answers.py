"""Answers are asked for once, whatever happens in between, and anew where anything has changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_mono.benchmarks.answers import Answers, model_digest, settings_of
from lightning_mono.benchmarks.ask import ask
from lightning_mono.benchmarks.benchmark import Benchmark
from lightning_mono.benchmarks.jsonl import read_jsonl
from lightning_mono.errors import DataError
from lightning_mono.inference import Assistant

from .conftest import Write, make_assistant, png

BATCH = 3


class Counted(Assistant):
    """Knows what it was asked."""

    batches: list[list[str]]

    @classmethod
    def of(cls, assistant: Assistant) -> Counted:
        counted = cls(assistant.model, assistant.renderer, assistant.chat)
        counted.batches = []
        return counted

    def answer(self, items: Sequence[Any], *args: Any, **kwargs: Any) -> list[str]:
        self.batches.append([question for _, question in items])
        return super().answer(items, *args, **kwargs)


@pytest.fixture
def counted(assistant: Assistant) -> Counted:
    return Counted.of(assistant)


@pytest.fixture
def benchmark(questions: Path) -> Benchmark:
    return read_jsonl(questions)


def asked(
    model: Counted, benchmark: Benchmark, out: Path, size: int = BATCH, **options: Any
) -> dict[str, str]:
    answers = Answers(out, settings_of(model_digest(model), benchmark, size))
    return ask(model, benchmark, answers, batch_size=size, **options)


def test_all_are_asked_once_in_batches_of_like_length(
    counted: Counted, benchmark: Benchmark, tmp_path: Path
) -> None:
    said = asked(counted, benchmark, tmp_path)
    assert list(said) == [item.id for item in benchmark.items]
    asked_for = [prompt for batch in counted.batches for prompt in batch]
    assert sorted(asked_for) == sorted(map(benchmark.ask, benchmark.items))
    assert [len(batch) for batch in counted.batches] == [3, 3, 3, 2]
    assert len(set(said.values())) > 3, "the model tells questions apart"
    before = len(counted.batches)
    assert asked(counted, benchmark, tmp_path) == said
    assert len(counted.batches) == before, "nothing is asked again"


def test_a_batch_does_not_change_an_answer(
    counted: Counted, benchmark: Benchmark, tmp_path: Path
) -> None:
    """Not a law in the last bit of a logit, but of these answers."""
    assert asked(counted, benchmark, tmp_path, 4) == asked(counted, benchmark, tmp_path, 1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A finished file of answers, and what it was made of."""
    folder = tmp_path_factory.mktemp("whole")
    records = [
        {"id": f"q{n}", "question": "is it red? " * (n % 4), "answer": "a"} for n in range(8)
    ]
    lines = [{"benchmark": "b", "scoring": "gqa"}, *records[1:4], *records[5:]]
    (folder / "b.jsonl").write_text("\n".join(map(json.dumps, lines)))
    benchmark = read_jsonl(folder / "b.jsonl")
    model = Counted.of(make_assistant())
    answers = Answers(folder, settings_of(model_digest(model), benchmark, BATCH))
    said = ask(model, benchmark, answers, batch_size=BATCH)
    content = (answers.folder / "answers-0.jsonl").read_bytes()
    return {"model": model, "benchmark": benchmark, "said": said, "content": content}


@given(cut=st.floats(0, 1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
def test_a_file_cut_anywhere_is_gone_on_with(
    cut: float, whole: dict[str, Any], tmp_path: Path
) -> None:
    model, benchmark = whole["model"], whole["benchmark"]
    answers = Answers(tmp_path, settings_of("m", benchmark, BATCH))
    answers.folder.mkdir(exist_ok=True)
    file = answers.folder / "answers-0.jsonl"
    kept = whole["content"][: int(cut * len(whole["content"]))]
    file.write_bytes(kept)
    model.batches.clear()
    assert ask(model, benchmark, answers, batch_size=BATCH) == whole["said"]
    assert file.read_bytes() == whole["content"], "each answer is there once, in the same order"
    missing = len(benchmark.items) - kept.count(b"\n")
    assert len(model.batches) == -(-missing // BATCH), "what was answered is not asked again"


def test_whatever_changes_is_asked_anew(
    counted: Counted, benchmark: Benchmark, questions: Path, tmp_path: Path
) -> None:
    def asks(model: Counted, benchmark: Benchmark, size: int = BATCH) -> bool:
        before = len(model.batches)
        asked(model, benchmark, tmp_path, size)
        return len(model.batches) > before

    assert asks(counted, benchmark)
    assert not asks(counted, read_jsonl(questions)), "what is the same is the same from the disk"
    assert asks(counted, benchmark, BATCH + 1)
    longer = replace(benchmark, prompt=replace(benchmark.prompt, max_new_tokens=3))
    assert asks(counted, longer)
    other = replace(benchmark, prompt=replace(benchmark.prompt, template="so, {question}"))
    assert asks(counted, other)
    assert asks(counted, benchmark.first(5))
    (questions.parent / "red.png").write_bytes(png("green"))
    assert asks(counted, read_jsonl(questions))
    changed = Counted.of(make_assistant())
    with torch.no_grad():
        changed.model.layers[1].ffn.visual.down.weight[0, 0] += 1e-3
    assert asks(changed, read_jsonl(questions))
    told = make_assistant()
    told.renderer.system = "be brief"
    told.renderer.__dict__.pop("fingerprint", None)
    assert asks(Counted.of(told), read_jsonl(questions))


def test_answers_can_be_asked_anew(counted: Counted, benchmark: Benchmark, tmp_path: Path) -> None:
    said = asked(counted, benchmark, tmp_path)
    assert asked(counted, benchmark, tmp_path, fresh=True) == said
    assert len(counted.batches) == 8
    (file,) = tmp_path.rglob("answers-*.jsonl")
    assert len(file.read_text().splitlines()) == len(benchmark.items)


def test_a_damaged_file_is_named_and_kept(
    counted: Counted, benchmark: Benchmark, tmp_path: Path
) -> None:
    asked(counted, benchmark, tmp_path)
    (file,) = tmp_path.rglob("answers-*.jsonl")
    lines = file.read_text().splitlines()
    for junk in ("{", "[1]", '{"id": "q1"}'):
        file.write_text("\n".join([*lines[:2], junk, *lines[3:]]) + "\n")
        with pytest.raises(DataError, match=r"answers-0.jsonl, line 3: is no answer; .*--fresh"):
            asked(counted, benchmark, tmp_path)


def test_two_runs_do_not_write_to_one_file(
    counted: Counted, benchmark: Benchmark, tmp_path: Path
) -> None:
    folder = Answers(tmp_path, settings_of(model_digest(counted), benchmark, BATCH)).folder
    folder.mkdir()
    with (
        FileLock(folder / ".lock"),
        pytest.raises(DataError, match="is being written by another process"),
    ):
        asked(counted, benchmark, tmp_path)
    assert asked(counted, benchmark, tmp_path)


def test_a_picture_that_breaks_off_is_named_and_what_came_before_is_kept(
    counted: Counted, write: Write, tmp_path: Path
) -> None:
    records = [{"id": n, "question": "what? " * n, "answer": "a"} for n in range(1, 6)]
    records[4]["image"] = "cut.png"
    path = write({"benchmark": "b", "scoring": "gqa"}, *records)
    (tmp_path / "cut.png").write_bytes(png(size=(300, 300))[:-60])
    benchmark = read_jsonl(path)
    with pytest.raises(DataError, match=r"own.jsonl: 5: cannot read image: .*put the image right"):
        asked(counted, benchmark, tmp_path, 2)
    (file,) = tmp_path.rglob("answers-*.jsonl")
    assert len(file.read_text().splitlines()) == 4


def test_a_model_without_eyes_says_so(write: Write, tmp_path: Path) -> None:
    record = {"id": 1, "image": "red.png", "question": "what?", "answer": "a"}
    path = write({"benchmark": "b", "scoring": "gqa"}, record)
    blind = make_assistant()
    blind.renderer._turns._images = None
    with pytest.raises(DataError, match="b: 1 has an image, but the model takes text only"):
        asked(Counted.of(blind), read_jsonl(path), tmp_path)
