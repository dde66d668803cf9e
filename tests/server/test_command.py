"""The command: what it refuses before it serves."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_mono import cli
from lightning_mono.cli.serve import KEY

from .conftest import free_port

Captured = pytest.CaptureFixture[str]


def refused(arguments: list[str], capsys: Captured) -> str:
    """Runs a command that fails, and gives its one line."""
    assert cli.main(["serve", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_without_its_packages_it_says_what_to_install(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.startswith("lightning_mono.server"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "litserve", None)
    says = refused(["runs/quickstart"], capsys)
    assert "serve needs litserve; pip install 'lightning-mono[serve]'" in says


def test_a_key_that_cannot_be_had_is_no_open_door(capsys: Captured, tmp_path: Path) -> None:
    empty = tmp_path / "key"
    empty.write_text("\n")
    assert "is empty" in refused(["runs/a", "--api-key-file", str(empty)], capsys)
    assert "cannot be read" in refused(["runs/a", "--api-key-file", str(tmp_path / "no")], capsys)


def test_a_port_that_is_taken_is_named(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        says = refused(["runs/quickstart", "--port", str(port)], capsys)
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in says


@pytest.mark.parametrize("flags", [["--port", "80"], ["--slots", "0"], ["--host", "example.org"]])
def test_settings_out_of_range_are_refused(flags: list[str], capsys: Captured) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["serve", "runs/quickstart", *flags])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: argument {flags[0]}: ")


def test_a_model_that_cannot_be_loaded_is_refused_as_by_other_verbs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lightning_mono", "serve", str(tmp_path / "nothing")]
    command += ["--port", str(free_port())]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    says = f"error: {tmp_path / 'nothing'} is no model folder: give one, a run folder or a hub id\n"
    assert (process.returncode, out, err) == (2, "", says)
