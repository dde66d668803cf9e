"""Preparation survives whatever is wrong with the data, and says what was left out."""

from __future__ import annotations

import json
import os
import pickle
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_mono.data import parts
from lightning_mono.data import prepare as preparing
from lightning_mono.data import store as storing
from lightning_mono.data.prepare import prepare
from lightning_mono.data.sample import Exchange, Sample
from lightning_mono.data.sources import SourceSpec
from lightning_mono.data.store import Store, from_record, to_record
from lightning_mono.errors import DataError

from .conftest import png

WriteJsonl = Callable[[list[object]], Path]
GOOD = {"id": "good", "image": "red.png", "question": "color?", "answer": "red", "kind": "color"}


def spec(path: Path, **options: Any) -> SourceSpec:
    return SourceSpec("jsonl", options={"path": str(path), **options})


@given(
    st.builds(
        Sample,
        id=st.text(),
        images=st.lists(st.binary(max_size=20), max_size=3).map(tuple),
        exchanges=st.lists(st.builds(Exchange, st.text(), st.text(), st.text())).map(tuple),
        text=st.text(),
        dialogue=st.booleans(),
        sizes=st.lists(st.tuples(st.integers(1), st.integers(1))).map(tuple),
    )
)
def test_a_record_holds_all_of_a_sample(sample: Sample) -> None:
    assert from_record(to_record(sample)) == sample


def test_what_is_prepared_can_be_read_back(write_jsonl: WriteJsonl, tmp_path: Path) -> None:
    lines: list[object] = [{**GOOD, "id": f"s{n}", "answer": f"red {n}"} for n in range(20)]
    folder = prepare(spec(write_jsonl(lines)), tmp_path / "cache")
    store = Store(folder)
    assert [store[n].id for n in range(len(store))] == [f"s{n}" for n in range(20)]
    assert store[7] == Sample(
        "s7", (png(),), (Exchange("color?", "red 7", "color"),), sizes=((8, 8),)
    )
    assert store.manifest["samples"] == store.manifest["images"] == 20
    with pytest.raises(IndexError):
        store[20]


def test_faulty_lines_are_skipped_counted_and_explained(
    write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    (tmp_path / "outside.png").write_bytes(png())
    faulty: list[object] = [
        {**GOOD, "id": "gone", "image": "gone.png"},
        {**GOOD, "id": "escape", "image": "../outside.png"},
        {**GOOD, "id": "absolute", "image": str(tmp_path / "outside.png")},
        {**GOOD, "id": "cut", "image": "cut.png"},
        {**GOOD, "id": "empty", "answer": " "},
        {**GOOD, "id": "number", "answer": 3},
        {**GOOD, "id": "folder", "image": "."},
        {**GOOD, "id": "null", "image": "a\0b"},
        {"id": "bare", "image": "red.png"},
        {"id": "odd", "image": "red.png", "conversations": [{"from": "human", "value": "a"}]},
        {"id": "blind", "conversations": [
            {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "a"}]},
        [1, 2],
        "{ not json",
        "[" * 100_000,
    ]  # fmt: skip
    path = write_jsonl([GOOD, *faulty])
    (path.parent / "cut.png").write_bytes(png(size=(64, 64))[:-30])
    store = Store(prepare(spec(path), tmp_path / "cache"))
    assert len(store) == 1
    reasons = {skip["id"]: skip["reason"] for skip in store.manifest["skipped"]}
    assert store.manifest["skipped_count"] == len(reasons) == len(faulty)
    expected = {
        "gone": "line 2: cannot read image gone.png: No such file",
        "escape": "outside",
        "absolute": "is absolute",
        "cut": "cannot read image",
        "empty": "answer is empty",
        "number": "answer is not a string",
        "folder": "not a file",
        "null": "null byte",
        "bare": "has none of",
        "odd": "alternate",
        "blind": "names none",
        "line 13": "not a JSON object",
        "line 14": "is not JSON",
    }
    for name, reason in expected.items():
        assert reason in reasons[name]


def test_nothing_usable_is_an_error_and_leaves_nothing(
    write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match=r"no usable sample in jsonl/train .*it is empty"):
        prepare(spec(write_jsonl([])), cache)
    with pytest.raises(DataError, match=r"no usable sample.*gone line 1: cannot read image"):
        prepare(spec(write_jsonl([{**GOOD, "id": "gone", "image": "gone.png"}])), cache)
    assert not list(cache.glob("jsonl-*"))
    assert not list(cache.glob("*.tmp-*"))


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*none\.jsonl: No such file"):
        prepare(spec(tmp_path / "none.jsonl"), tmp_path)


def test_preparing_again_does_nothing_until_the_file_changes(
    write_jsonl: WriteJsonl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_jsonl([GOOD])
    first = prepare(spec(path), tmp_path / "cache")
    with monkeypatch.context() as patched:
        patched.setattr(preparing, "_build", lambda *_: pytest.fail("prepared twice"))
        assert prepare(spec(path), tmp_path / "cache") == first
    write_jsonl([GOOD, GOOD])
    second = prepare(spec(path), tmp_path / "cache")
    assert (len(Store(first)), len(Store(second))) == (1, 2)


def test_a_full_disk_is_one_line_and_what_was_written_is_gone_on_with(
    write_jsonl: WriteJsonl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = write_jsonl([GOOD])
    monkeypatch.setattr("litdata.streaming.Cache.done", full)
    with pytest.raises(DataError, match=r"cannot prepare jsonl/train .*No space left on device"):
        prepare(spec(path), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("jsonl-*"))
    monkeypatch.undo()
    assert len(Store(prepare(spec(path), tmp_path / "cache"))) == 1
    assert {file.suffix for file in (tmp_path / "cache").glob(".*")} == {".lock"}


def test_many_at_once_write_once(write_jsonl: WriteJsonl, tmp_path: Path) -> None:
    source = spec(write_jsonl([GOOD] * 50))
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: prepare(source, tmp_path / "cache"), range(4)))
    assert len(set(folders)) == 1
    assert len(Store(folders[0])) == 50


def test_preparation_leaves_the_process_as_it_was(
    write_jsonl: WriteJsonl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a rank that a launcher started; litdata must not wait for the other's chunks.
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("GLOBAL_RANK", "1")

    def state() -> tuple[object, ...]:
        generators = random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()
        return dict(os.environ), generators

    before = state()
    folder = prepare(spec(write_jsonl([GOOD])), tmp_path / "cache")
    assert Store(folder)[0].id == "good"
    assert state() == before


def test_a_store_reads_in_any_order_within_its_bound(
    write_jsonl: WriteJsonl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "CHUNK_BYTES", 1000)
    lines: list[object] = [{**GOOD, "id": f"s{n}"} for n in range(40)]
    store = Store(prepare(spec(write_jsonl(lines)), tmp_path / "cache"))
    assert len(store.chunk_sizes) > 5
    assert sum(store.chunk_sizes) == len(store) == 40
    monkeypatch.setattr(storing, "CACHE_BYTES", 2500)
    for index in np.random.default_rng(0).permutation(120) % 40:
        assert store[int(index)].id == f"s{index}"
        assert store._bytes <= 2500
    again = pickle.loads(pickle.dumps(store))
    assert again[33] == store[33]


def test_damaged_folders_say_so(write_jsonl: WriteJsonl, tmp_path: Path) -> None:
    folder = prepare(spec(write_jsonl([GOOD])), tmp_path / "cache")
    with pytest.raises(DataError, match="is not a prepared data set"):
        Store(tmp_path)
    for chunk in folder.glob("*.bin"):
        chunk.write_bytes(b"")
    with pytest.raises(DataError, match="cannot read chunk 0 of"):
        Store(folder)[0]
    (folder / "manifest.json").write_text(json.dumps({})[:-1])
    with pytest.raises(DataError, match="prepare it again"):
        Store(folder)
