"""A file appears whole or not at all, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_mono.backbones import shards
from lightning_mono.checkpoints.atomic import replacing
from lightning_mono.checkpoints.run import AtomicCheckpointIO, latest, read, stage_file, step_file
from lightning_mono.errors import CheckpointError
from lightning_mono.model import MonoModel
from lightning_mono.testing import tiny_model


def _full(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _torch_full(*args: Any, **kwargs: Any) -> None:
    raise RuntimeError("[enforce fail at inline_container.cc:664] unexpected pos 64 vs 0\nframe 0")


def _raise(error: type[BaseException]) -> None:
    raise error


def _write(path: Path, written: bytes, fails: Callable[[], None]) -> None:
    """Begins to replace a file, and fails."""
    with replacing(path) as temporary:
        temporary.write_bytes(written)
        fails()


def _only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_new_file_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    for text in ("old", "new"):
        with replacing(path) as temporary:
            temporary.write_text(text)
            assert temporary.parent == path.parent, "a rename across disks is not atomic"
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text
    assert _only(path.parent) == ["file"]


@pytest.mark.parametrize("fails", [_full, _torch_full])
@pytest.mark.parametrize("written", [b"", b"half"])
def test_a_full_disk_leaves_the_old_file(
    fails: Callable[[], None], written: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(CheckpointError) as caught:
        _write(path, written, fails)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(path) in message
    assert "intact" in message
    assert "free space" in message
    assert path.read_text() == "old"
    assert _only(tmp_path) == ["file"]


def test_a_full_disk_while_flushing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(CheckpointError, match="No space left"), replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "old"
    assert _only(tmp_path) == ["file"]


def test_an_interrupt_or_a_bug_passes_through_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    for error in (KeyboardInterrupt, ZeroDivisionError):
        with pytest.raises(error):
            _write(path, b"new", partial(_raise, error))
    assert path.read_text() == "old"
    assert _only(tmp_path) == ["file"]


def test_a_writer_that_writes_nothing_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot write"), replacing(tmp_path / "file"):
        pass
    assert _only(tmp_path) == []


@pytest.mark.parametrize("fails", [_full, _torch_full])
def test_a_model_survives_a_full_disk(
    fails: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tiny_model(seed=1)
    old.save_pretrained(tmp_path)
    monkeypatch.setattr(shards, "save_file", fails)
    with pytest.raises(CheckpointError, match="cannot write"):
        tiny_model(seed=2).save_pretrained(tmp_path)
    again = MonoModel.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in old.state_dict().items())


@pytest.mark.parametrize("fails", [_full, _torch_full])
def test_a_training_checkpoint_survives_a_full_disk(
    fails: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    io, path = AtomicCheckpointIO(), step_file(tmp_path, 3)
    io.save_checkpoint({"global_step": 3}, path)
    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(CheckpointError, match="--resume"):
        io.save_checkpoint({"global_step": 4}, path)
    assert read(path) == {"global_step": 3}


def test_the_latest_checkpoint_is_the_furthest_one_of_either_kind(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    for path in (
        step_file(tmp_path, 90),
        stage_file(tmp_path, "vqa", 100),
        stage_file(tmp_path, "step=999", 5),
        tmp_path / "notes.ckpt",
    ):
        path.write_bytes(b"")
    assert latest(tmp_path) == stage_file(tmp_path, "vqa", 100)


@pytest.mark.parametrize("content", [None, b"", b"junk"])
def test_a_broken_checkpoint_says_so_in_one_line(content: bytes | None, tmp_path: Path) -> None:
    path = step_file(tmp_path, 1)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1
