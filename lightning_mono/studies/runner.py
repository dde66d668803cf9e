"""Runs the cells of a study that are not done, each in a process of its own.

A cell that fails leaves its log and a line that says why; the others go on, and it is tried again
the next time. A cell that was killed goes on from its last checkpoint. Runs end with the study: a
signal is handed on to them, and on Linux the system sees to it where the study itself is killed.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from lightning_mono.checkpoints.atomic import replacing
from lightning_mono.recipe import to_yaml
from lightning_mono.studies.cells import Cell
from lightning_mono.studies.room import Slot

POLL = 0.2
"""Seconds between looks at the runs."""

PATIENCE = 20.0
"""Seconds that runs have to end by themselves when the study is stopped."""

_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


@dataclass(frozen=True)
class Ended:
    """A run that has come to its end.

    Attributes:
        cell: which.
        seconds: that it took, this time.
        failure: why it failed, in a line; None where it is done.
    """

    cell: Cell
    seconds: float
    failure: str | None


@dataclass
class _Running:
    cell: Cell
    slot: Slot
    process: subprocess.Popen[bytes]
    started: float


def run_cells(
    cells: Sequence[Cell],
    slots: Sequence[Slot],
    *,
    keep_checkpoints: bool,
    note: Callable[[Ended], None],
) -> dict[str, str]:
    """Runs what is not done, as many at a time as there are slots.

    Args:
        cells: of a study; those that are the same run once.
        slots: see :mod:`lightning_mono.studies.room`.
        keep_checkpoints: of the runs that are done; their models are kept in any case.
        note: is told of each run that ends.

    Returns:
        Folder of each cell that failed -> why.
    """
    waiting = list({cell.recipe.out: cell for cell in cells if not cell.done}.values())
    free, running = list(slots), list[_Running]()
    failures: dict[str, str] = {}
    with _stopping(running):
        while waiting or running:
            while waiting and free:
                running.append(_start(waiting.pop(0), free.pop(0)))
            time.sleep(POLL)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                free.append(one.slot)
                ended = _ended(one)
                if ended.failure is not None:
                    failures[one.cell.recipe.out] = ended.failure
                elif not keep_checkpoints:
                    shutil.rmtree(one.cell.run.checkpoints, ignore_errors=True)
                note(ended)
    return failures


def _start(cell: Cell, slot: Slot) -> _Running:
    cell.file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(cell.file) as temporary:
        temporary.write_text(to_yaml(cell.recipe), encoding="utf-8")
    command = [sys.executable, "-m", "lightning_mono", "fit", str(cell.file), "--resume"]
    with cell.log.open("ab") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **slot.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
    return _Running(cell, slot, process, time.monotonic())


def _end_with_parent() -> None:
    """Asks Linux to kill this process when the one that started it is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _ended(one: _Running) -> Ended:
    status, failure = one.process.returncode, None
    if status != 0 or not one.cell.done:
        failure = _reason(one.cell, status)
    return Ended(one.cell, time.monotonic() - one.started, failure)


def _reason(cell: Cell, status: int) -> str:
    """The last line of a log that says what went wrong."""
    lines = cell.log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line.strip() for line in lines if line.strip()]
    errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
    if status < 0:
        reason = f"killed by signal {-status}"
    elif errors and status == 2:
        reason = errors[-1]
    else:
        reason = said[-1] if said else f"exit status {status}"
    return f"{reason} (log: {cell.log})"


@contextmanager
def _stopping(running: list[_Running]) -> Iterator[None]:
    """Ends the runs where the study is stopped by a signal or an error."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        for one in running:
            one.process.terminate()
        end = time.monotonic() + PATIENCE
        for one in running:
            try:
                one.process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
