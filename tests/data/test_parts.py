"""Preparation at length: broken records of every kind, many processes, and death at any point."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from lightning_mono.data import parts
from lightning_mono.data.parts import Limits
from lightning_mono.data.prepare import prepare_into
from lightning_mono.data.sample import Sample
from lightning_mono.data.sources import SourceSpec
from lightning_mono.data.store import Store
from lightning_mono.errors import DataError

from . import made_sources
from .made_sources import TOO_LONG, Made, bomb, photo

LIMITS = Limits(part_records=64, characters=TOO_LONG)
FORMATS: dict[str, Callable[[Path], Made]] = {
    "json": lambda folder: made_sources.llava(folder, lines=False),
    "jsonl": lambda folder: made_sources.llava(folder, lines=True),
    "csv": lambda folder: made_sources.table(folder, ".csv"),
    "tsv": lambda folder: made_sources.table(folder, ".tsv"),
    "parquet": lambda folder: made_sources.table(folder, ".parquet"),
    "tars": made_sources.tars,
}


def spec(made: Made) -> SourceSpec:
    return SourceSpec(made.name, options=made.options)


def samples(folder: Path) -> list[Sample]:
    store = Store(folder)
    return [store[number] for number in range(len(store))]


def content(folder: Path) -> dict[str, bytes]:
    """All files of a prepared set."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_broken_is_left_out_and_named_and_nothing_else(name: str, tmp_path: Path) -> None:
    made = FORMATS[name](tmp_path)
    folder = prepare_into(spec(made), tmp_path / "out", workers=2, limits=LIMITS)
    assert [sample.id for sample in samples(folder)] == made.ids
    lines = (folder / "skipped.jsonl").read_text().splitlines()
    skips = [json.loads(line) for line in lines]
    assert {skip["id"]: skip["fault"] for skip in skips} == made.faults
    for skip in skips:  # ids may repeat in a file, places do not
        if made.place and skip["id"].isdecimal():
            assert skip["reason"].startswith(f"{made.place} {int(skip['id']) + 1}: ")
    assert len(lines) == len(made.faults)
    manifest = Store(folder).manifest
    assert manifest["skipped_count"] == len(lines)
    assert sum(manifest["skipped_by_fault"].values()) == len(lines)
    assert b"root:" not in b"".join(content(folder).values()), "a file outside was read"


def test_pictures_inside_a_table_are_checked_like_files(tmp_path: Path) -> None:
    pictures: list[object] = [
        {"bytes": photo(1), "path": "whatever.jpg"},
        {"bytes": photo(2)[:-200], "path": None},
        {"bytes": bomb(), "path": None},
        {"bytes": None, "path": "beside.jpg"},
        {"bytes": None, "path": "../../etc/passwd"},
        {"bytes": None, "path": "gone.jpg"},
        {"bytes": None, "path": None},
    ]
    (tmp_path / "beside.jpg").write_bytes(photo(3))
    columns = {"image": pictures, "caption": [f"number {n}" for n in range(len(pictures))]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "data.parquet")
    made = Made("table", {"path": str(tmp_path / "data.parquet")}, {}, [])
    folder = prepare_into(spec(made), tmp_path / "out")
    assert [sample.images for sample in samples(folder)] == [(photo(1),), (photo(3),)]
    assert {skip["id"]: skip["fault"] for skip in Store(folder).manifest["skipped"]} == {
        "row 2": "unreadable image",
        "row 3": "too large",
        "row 5": "unsafe path",
        "row 6": "missing file",
        "row 7": "malformed record",
    }


def test_files_of_one_name_in_several_folders_are_told_apart(tmp_path: Path) -> None:
    for name in ("train/a", "train/b"):
        (tmp_path / name).mkdir(parents=True)
        with tarfile.open(tmp_path / name / "00.tar", "w") as tar:
            for member, content in (("1.jpg", photo(1)), ("1.txt", b"noise"), ("2.txt", b"alone")):
                made_sources.add_member(tar, member, content)
    made = Made("webdataset", {"path": str(tmp_path / "train")}, {}, [])
    folder = prepare_into(spec(made), tmp_path / "out")
    assert [sample.id for sample in samples(folder)] == ["a/00/1", "b/00/1"]
    assert [skip["id"] for skip in Store(folder).manifest["skipped"]] == ["a/00/2", "b/00/2"]


@pytest.mark.parametrize("name", ["json", "tars"])
def test_the_number_of_processes_changes_not_a_byte(name: str, tmp_path: Path) -> None:
    made = FORMATS[name](tmp_path)
    one, three = (
        prepare_into(spec(made), tmp_path / f"out{workers}", workers=workers, limits=LIMITS)
        for workers in (1, 3)
    )
    assert content(one) == content(three)


RUN = """
import json, sys
from pathlib import Path
from lightning_mono.data.parts import Limits
from lightning_mono.data.prepare import prepare_into
from lightning_mono.data.sources import SourceSpec
name, options, out, workers, limits = json.loads(sys.argv[1])
print("started", flush=True)
prepare_into(SourceSpec(name, options=options), Path(out), workers=workers, limits=Limits(*limits))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_any_point_it_goes_on_to_the_same_bytes(workers: int, tmp_path: Path) -> None:
    made = FORMATS["json"](tmp_path)
    whole, out = tmp_path / "whole", tmp_path / "out"
    limits = [LIMITS.part_records, LIMITS.characters]

    @contextmanager
    def preparing(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
        arguments = json.dumps([made.name, made.options, str(folder), workers, limits])
        command = [sys.executable, "-c", RUN, arguments]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, start_new_session=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            yield process

    def written() -> int:
        return len(list(tmp_path.glob(".out.partial/parts/*.json")))

    with preparing(whole) as process:
        assert process.wait() == 0
    chance = random.Random(workers)
    counts = []
    for more in (0, 1, 4, 3):  # parts that it writes before it dies
        goal = written() + more
        with preparing(out) as process:
            while written() < goal and process.poll() is None:
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.03 if more else 0.4))
            process.kill()  # its children have to find out by themselves
        counts.append(written())
    assert any(counts), "it never died between parts"
    prepare_into(spec(made), out, workers=workers, limits=LIMITS)
    assert content(out) == content(whole)
    assert not (tmp_path / ".out.partial").exists()


def test_parts_that_are_done_are_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = FORMATS["jsonl"](tmp_path)
    whole = content(prepare_into(spec(made), tmp_path / "whole", limits=LIMITS))
    write = parts._write
    written: list[int] = []

    def stopping(number: int, *rest: object) -> None:
        if len(written) == 7:
            raise KeyboardInterrupt
        write(number, *rest)  # type: ignore[arg-type]
        written.append(number)

    out = tmp_path / "out"
    monkeypatch.setattr(parts, "_write", stopping)
    with pytest.raises(KeyboardInterrupt):
        prepare_into(spec(made), out, limits=LIMITS)
    chunk = next((tmp_path / ".out.partial/content").glob("part-000003-*.bin"))
    chunk.write_bytes(chunk.read_bytes()[:-1])  # a part whose chunk is not whole is not done
    again: list[int] = []
    monkeypatch.setattr(parts, "_write", lambda n, *rest: (again.append(n), write(n, *rest)))
    handled: list[int] = []
    prepare_into(spec(made), out, limits=LIMITS, progress=handled.append)
    assert written == list(range(7))
    assert again == [3, *range(7, 16)]
    assert sum(handled) == made_sources.RECORDS
    assert content(out) == whole


def test_what_was_begun_of_other_data_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = FORMATS["jsonl"](tmp_path)
    path, out = Path(made.options["path"]), tmp_path / "out"
    monkeypatch.setattr("lightning_mono.data.prepare._manifest", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_into(spec(made), out, limits=LIMITS)
    monkeypatch.undo()
    path.write_bytes(path.read_bytes().replace(b"noise", b"sound"))
    prepare_into(spec(made), out, limits=LIMITS)
    assert {e.answer for sample in samples(out) for e in sample.exchanges} == {"sound"}


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_folder_that_holds_something_else_is_not_touched(tmp_path: Path) -> None:
    made = FORMATS["csv"](tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("all my work")
    with pytest.raises(DataError, match=r"out exists and is not table/train .*delete it or name"):
        prepare_into(spec(made), out, limits=LIMITS)
    assert content(out) == {"thesis.txt": b"all my work"}


def test_preparing_the_same_again_finds_it_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = FORMATS["csv"](tmp_path)
    prepare_into(spec(made), tmp_path / "out", limits=LIMITS)
    monkeypatch.setattr(parts, "_write", lambda *_: pytest.fail("written twice"))
    prepare_into(spec(made), tmp_path / "out", limits=LIMITS)


def test_a_process_that_dies_is_one_line_that_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = FORMATS["csv"](tmp_path)
    monkeypatch.setattr(parts, "_checked", lambda *_: os._exit(9))
    with pytest.raises(DataError, match="fewer workers"):
        prepare_into(spec(made), tmp_path / "out", workers=2, limits=LIMITS)
    monkeypatch.undo()
    assert [s.id for s in samples(prepare_into(spec(made), tmp_path / "out", limits=LIMITS))]


def test_parts_end_where_they_hold_enough_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 100)
    heavy = [Sample(str(n), (b"x" * 60,)) for n in range(5)]
    assert [len(part) for part in parts._parts(heavy, LIMITS)] == [2, 2, 1]
