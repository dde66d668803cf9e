"""From prepared folders to batches: what a batch holds, and that it is always the same one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_mono.data import loader as loading
from lightning_mono.data.collate import collate
from lightning_mono.data.lengths import measure
from lightning_mono.data.loader import StageData, StagedLoader, stage_loader
from lightning_mono.data.prepare import prepare
from lightning_mono.data.render import Renderer
from lightning_mono.data.sources import SourceSpec
from lightning_mono.data.store import Store
from lightning_mono.errors import DataError
from lightning_mono.model.batch import Batch

WriteJsonl = Callable[[list[object]], Path]
ROW = 64


@pytest.fixture
def store(write_jsonl: WriteJsonl, tmp_path: Path) -> Store:
    lines: list[object] = []
    for n in range(30):
        line: dict[str, Any] = {"id": f"s{n}", "question": "is there a red shape? " * (n % 3 + 1)}
        line |= {"answer": f"yes {n}"} | ({"image": "red.png"} if n % 2 else {})
        lines.append(line)
    spec = SourceSpec("jsonl", options={"path": str(write_jsonl(lines))})
    return Store(prepare(spec, tmp_path / "cache"))


@pytest.fixture
def data(store: Store, plain: Renderer) -> StageData:
    return StageData([(store, 1.0)], plain, sequence_length=ROW, batch_size=2, seed=3, pad_id=5)


def same(a: Batch, b: Batch) -> bool:
    names = ("input_ids", "positions", "documents", "branches", "pixel_values", "targets")
    return a.samples == b.samples and all(
        torch.equal(getattr(a, name), getattr(b, name)) for name in names
    )


def take(loader: Any, count: int) -> list[Batch]:
    return list(islice(iter(loader), count))


def test_a_batch_holds_its_examples_end_to_end(
    store: Store, plain: Renderer, data: StageData
) -> None:
    rows = [[0, 1], [2]]
    examples = [[plain.example(store[n], ROW * 4) for n in row] for row in rows]
    batch = collate(examples, plain, ROW * 4, pad_id=5)  # type: ignore[arg-type]
    assert batch.samples == ["s0", "s1", "s2"]
    assert batch.input_ids.shape == (2, ROW * 4)
    for row, row_examples in enumerate(examples):
        for document, example in enumerate(row_examples, 1):
            assert example is not None
            here = batch.documents[row] == document
            assert batch.input_ids[row, here].tolist() == example.input_ids.tolist()
            assert batch.positions[row, here].tolist() == example.positions.tolist()
            assert batch.branches[row, here].tolist() == example.branches.tolist()
    padding = batch.documents == 0
    assert padding.any()
    assert set(batch.input_ids[padding].tolist()) == {5}
    answers = plain.tokenizer.decode(batch.targets.tolist(), skip_special_tokens=False)
    assert answers == " yes 0<|im_end|> yes 1<|im_end|> yes 2<|im_end|>"
    assert batch.pixel_values.shape == (1, 3, 8, 8)
    assert batch.layout.visual.count == 3
    with pytest.raises(ValueError, match="row 0 holds more than 10 tokens"):
        collate(examples, plain, 10, pad_id=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_workers(data: StageData, workers: int) -> None:
    here, there = take(stage_loader(data), 6), take(stage_loader(data, workers=workers), 6)
    assert all(same(a, b) for a, b in zip(here, there, strict=True))


def test_batches_are_the_same_with_and_without_kept_examples(
    data: StageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = take(stage_loader(data), 12)
    monkeypatch.setattr(loading, "EXAMPLE_BYTES", 0)
    anew = take(stage_loader(data), 12)
    assert all(same(a, b) for a, b in zip(kept, anew, strict=True))


def test_ranks_see_different_rows_of_one_plan(data: StageData) -> None:
    whole = [s for batch in take(stage_loader(data), 6) for s in batch.samples]
    ranks = [take(stage_loader(data, rank=rank, world=2), 3) for rank in range(2)]
    shared = [s for batches in zip(*ranks, strict=True) for batch in batches for s in batch.samples]
    assert sorted(shared) == sorted(whole)


def schedule(first: StageData, second: StageData, workers: int) -> StagedLoader:
    def stage(data: StageData) -> Callable[[int], Any]:
        return lambda start: stage_loader(data, start=start, workers=workers)

    return StagedLoader([(stage(first), 4), (stage(second), 3)])


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_anywhere_sees_what_an_unbroken_run_sees(
    store: Store, plain: Renderer, data: StageData, workers: int
) -> None:
    other = StageData([(store, 1.0)], plain, sequence_length=ROW, batch_size=1, seed=9)
    whole = list(schedule(data, other, 0))
    assert len(whole) == len(schedule(data, other, workers)) == 7
    for stop in (0, 1, 4, 6):
        running = schedule(data, other, workers)
        before = take(running, stop)
        resumed = schedule(data, other, workers)
        resumed.load_state_dict(running.state_dict())
        seen = before + list(resumed)
        assert all(same(a, b) for a, b in zip(whole, seen, strict=True))
        assert len(resumed) == 7
        assert resumed.state_dict() == {"batches": 7}


def test_a_finished_schedule_starts_over(data: StageData) -> None:
    loader = schedule(data, data, 0)
    first, second = list(loader), list(loader)
    assert all(same(a, b) for a, b in zip(first, second, strict=True))


def test_the_first_batch_of_a_stage_is_waited_for_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that the stages turn: opening takes them 100 s, and their n-th batch n seconds."""
    clock = 0.0

    def stage(start: int) -> Iterator[int]:
        nonlocal clock
        clock += 100
        for n in count(start):
            clock += n
            yield n

    monkeypatch.setattr(loading.time, "monotonic", lambda: clock)
    loader = StagedLoader([(stage, 3), (stage, 4)])  # type: ignore[list-item]
    loader.load_state_dict({"batches": 1})
    waits = []
    for _ in loader:
        waits.append((loader.waited, loader.opening))
        clock += 1000  # a step, which nobody waits for data in
    assert waits == [(0, 101), (2, 101), (2, 201), (3, 201), (5, 201), (8, 201)]


def test_loading_leaves_the_global_generator_alone(data: StageData) -> None:
    before = torch.get_rng_state()
    take(stage_loader(data), 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_lengths_are_measured_once_and_again_when_damaged(
    store: Store, plain: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure(store, plain, ROW)
    (cached,) = store.folder.glob("lengths-*.npy")
    with monkeypatch.context() as patched:
        patched.setattr(Renderer, "length", lambda *_: pytest.fail("measured twice"))
        assert np.array_equal(measure(store, plain, ROW).tokens, first.tokens)
    cached.write_bytes(cached.read_bytes()[:-7])
    assert np.array_equal(measure(store, plain, ROW).tokens, first.tokens)
    assert len(measure(store, plain, ROW - 1).tokens) == len(store)


def test_what_does_not_fit_is_left_out_and_named(store: Store, plain: Renderer) -> None:
    lengths = [plain.length(store[n], 10_000)[0] for n in range(len(store))]
    room = sorted(lengths)[20]
    data = StageData([(store, 1.0)], plain, sequence_length=room, batch_size=1, seed=0)
    long = {store[n].id for n, length in enumerate(lengths) if length > room}
    assert {skip.id for skip in data.skipped} == long
    assert data.samples == len(store) - len(long)
    assert data.dropped == len(long)
    seen = {s for batch in take(stage_loader(data), 40) for s in batch.samples}
    assert seen == {store[n].id for n in range(len(store))} - long
    with pytest.raises(DataError, match="no sample of jsonl/train fits in 3 tokens"):
        StageData([(store, 1.0)], plain, sequence_length=3, batch_size=1, seed=0)
