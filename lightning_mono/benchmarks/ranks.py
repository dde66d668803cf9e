"""Several processes that share the questions: each has the model, none asks what another asks."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed, multiprocessing

from lightning_mono.errors import DataError, UserError

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""For how long the first process that is done waits for the last."""
_REFUSED = 3  # exit status of a process that has told what the user can put right


@dataclass(frozen=True)
class World:
    """This process among all of them."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def agree(self, work: Callable[[], T]) -> T:
        """Have the first process do something, and give its result to all.

        Raises:
            UserError: in every process, what the work has raised in the first.
        """
        result: list[Any] = [_outcome(work) if self.first else None]
        if self.size > 1:
            distributed.broadcast_object_list(result, src=0)
        return _unpacked(result[0])

    def gather(self, work: Callable[[], T]) -> list[T]:
        """Have every process do something, and give the results of all to all, by rank.

        Raises:
            UserError: in every process, what the work has raised in one.
        """
        results: list[Any] = [_outcome(work)]
        if self.size > 1:
            mine, results = results[0], [None] * self.size
            distributed.all_gather_object(results, mine)
        return [_unpacked(result) for result in results]


def _outcome(work: Callable[[], T]) -> T | UserError:
    try:
        return work()
    except UserError as error:
        return error


def _unpacked(outcome: T | UserError) -> T:
    if isinstance(outcome, UserError):
        raise outcome
    return outcome


def device() -> str:
    """Return the device of this process: an accelerator of its own, where there is one."""
    if not torch.cuda.is_available():
        return "cpu"
    local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= count:
        raise DataError(f"--devices: there are {count} GPUs here; ask for as many at most")
    return f"cuda:{local}"


@contextmanager
def joined(store: str | None = None) -> Iterator[World]:
    """Join the processes that `torchrun` or `launch` has started; alone, there is nothing to join.

    They talk over gloo on any device: what is exchanged is text.

    Args:
        store: the address at which processes meet; by default as the environment says.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    rank = int(os.environ["RANK"])
    distributed.init_process_group(
        "gloo", init_method=store, rank=rank, world_size=size, timeout=PATIENCE
    )
    try:
        yield World(rank, size)
    finally:
        distributed.destroy_process_group()


def launch(devices: int, work: Callable[[World], Any]) -> Any:
    """Do work in several processes.

    Args:
        devices: how many.
        work: can be pickled; what it returns in the first process is JSON.

    Returns:
        What the first process's work returns.

    Raises:
        UserError: what any of them has raised.
    """
    # One that is told to stop, since another cannot go on, is nothing to be told.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        try:
            multiprocessing.start_processes(
                _begin, (work, devices, folder), nprocs=devices, start_method="spawn"
            )
        except multiprocessing.ProcessExitedException as error:
            told = sorted(Path(folder).glob("refused-*"))
            if error.exit_code != _REFUSED or not told:
                raise
            raise UserError(told[0].read_text(encoding="utf-8")) from None
        return json.loads(Path(folder, "result.json").read_text(encoding="utf-8"))


def _begin(rank: int, work: Callable[[World], Any], devices: int, folder: str) -> None:
    """What a process that `launch` has started does."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(devices))
    try:
        with joined(f"file://{folder}/store") as world:
            result = work(world)
            if world.first:
                Path(folder, "result.json").write_text(json.dumps(result), encoding="utf-8")
    except UserError as error:
        Path(folder, f"refused-{rank}").write_text(str(error), encoding="utf-8")
        sys.exit(_REFUSED)
