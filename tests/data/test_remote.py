"""Prepared sets in an object store, read from a server that speaks S3."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch
from moto.server import ThreadedMotoServer

from lightning_mono.build import open_source
from lightning_mono.data import parts, remote
from lightning_mono.data.loader import StageData, stage_loader
from lightning_mono.data.prepare import prepare
from lightning_mono.data.remote import Mirror
from lightning_mono.data.render import Renderer
from lightning_mono.data.sources import SourceSpec
from lightning_mono.data.store import Store
from lightning_mono.errors import DataError
from lightning_mono.recipe.schema import SourceSection

WriteJsonl = Callable[[list[object]], Path]
URL = "s3://bucket/sets/pictures"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = ThreadedMotoServer(port=0)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of the server with one empty bucket; what is read is kept in ``tmp_path``."""
    monkeypatch.setenv("LIGHTNING_MONO_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anyone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    yield client
    for found in client.list_objects_v2(Bucket="bucket").get("Contents", []):
        client.delete_object(Bucket="bucket", Key=found["Key"])
    client.delete_bucket(Bucket="bucket")


@pytest.fixture
def local(write_jsonl: WriteJsonl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prepared folder of many small chunks."""
    monkeypatch.setattr(parts, "CHUNK_BYTES", 1500)
    lines: list[object] = [
        {"id": f"s{n}", "image": "red.png", "question": "color?", "answer": f"red {n}"}
        for n in range(20)
    ]
    spec = SourceSpec("jsonl", options={"path": str(write_jsonl(lines))})
    return prepare(spec, tmp_path / "prepared")


def upload(client: Any, folder: Path, url: str = URL) -> None:
    prefix = url.removeprefix("s3://bucket/")
    for file in folder.iterdir():
        if not file.name.startswith("."):
            client.upload_file(str(file), "bucket", f"{prefix}/{file.name}")


def chunks_kept(store: Store) -> int:
    return len(list(store.folder.glob("*.bin")))


def test_samples_are_those_of_the_folder_and_come_when_they_are_asked_for(
    s3: Any, local: Path
) -> None:
    upload(s3, local)
    here, there = Store(local), Store(URL)
    assert len(here.chunk_sizes) > 3
    assert there.chunk_sizes == here.chunk_sizes
    assert there.manifest == here.manifest
    assert chunks_kept(there) == 0
    assert there[19] == here[19]
    assert chunks_kept(there) == 1
    assert [there[n] for n in range(len(there))] == [here[n] for n in range(len(here))]
    assert chunks_kept(there) == len(here.chunk_sizes)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_folder(
    s3: Any, local: Path, plain: Renderer, workers: int
) -> None:
    upload(s3, local)

    def batches(store: Store, workers: int) -> list[Any]:
        data = StageData([(store, 1.0)], plain, sequence_length=64, batch_size=2, seed=3)
        return list(islice(stage_loader(data, workers=workers), 6))

    section = SourceSection(path=URL)
    for ours, theirs in zip(
        batches(open_source(section), workers), batches(Store(local), 0), strict=True
    ):
        assert ours.samples == theirs.samples
        assert torch.equal(ours.input_ids, theirs.input_ids)
        assert torch.equal(ours.pixel_values, theirs.pixel_values)


def test_what_was_read_is_not_fetched_again(
    s3: Any, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(s3, local)
    first = Store(URL)
    samples = [first[n] for n in range(len(first))]
    fetched, fetch = [], remote._fetched

    def noted(url: str, name: str) -> bytes:
        fetched.append(name)
        return fetch(url, name)

    monkeypatch.setattr(remote, "_fetched", noted)
    again = Store(URL)
    assert [again[n] for n in range(len(again))] == samples
    assert fetched == ["manifest.json"], "more than a look whether the set is still the same"


def test_of_many_readers_one_fetches(s3: Any, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(s3, local)
    mirror = Mirror.of(URL)
    fetched, fetch = [], remote._fetched

    def noted(url: str, name: str) -> bytes:
        fetched.append(name)
        return fetch(url, name)

    monkeypatch.setattr(remote, "_fetched", noted)
    name = next(local.glob("*.bin")).name
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(mirror.have, [name] * 8))
    assert fetched == [name]
    assert (mirror.folder / name).read_bytes() == (local / name).read_bytes()


def test_a_set_that_changes_is_read_anew(s3: Any, local: Path) -> None:
    upload(s3, local)
    before = Store(URL)
    assert before[0].id == "s0"
    manifest = local / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "digest": "another"}))
    upload(s3, local)
    after = Store(URL)
    assert after.folder != before.folder
    assert after[0] == before[0]


def test_what_cannot_be_had_is_one_line(
    s3: Any, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(s3, local)
    store = Store(URL)
    chunk = sorted(local.glob("*.bin"))[0].name
    s3.delete_object(Bucket="bucket", Key=f"sets/pictures/{chunk}")
    monkeypatch.setattr(remote, "ATTEMPTS", 1)
    for action, message in (
        (lambda: Store("s3://bucket/nothing"), r"cannot read s3://bucket/nothing/manifest\.json: "),
        (lambda: Store("s3://nobody/x"), r"cannot read s3://nobody/x/manifest\.json: "),
        (lambda: store[0], rf"cannot read {URL}/{chunk}: .*404"),
        (lambda: Store("ftp://host/x"), r"ftp://host/x: prepared sets are read from s3://, gs://"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            action()
        assert "\n" not in str(caught.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"cannot read .*Could not connect"):
        Store("s3://elsewhere/x")


def test_a_missing_package_names_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("litdata.streaming.downloader._GOOGLE_STORAGE_AVAILABLE", False)
    with pytest.raises(DataError, match=r"gs://bucket/x needs .*'lightning-mono\[gs\]'"):
        Store("gs://bucket/x")
