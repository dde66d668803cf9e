"""Runs a recipe that is killed at given points, or notes the points there are.

The tests of this folder run it as a script, ``killed.py RECIPE FOLDER JOB ...``. A job is ``NAME
POINT`` in one argument and runs, or goes on, in FOLDER/NAME. A point is a place in the run and a
number of calls of functions in it, as ``step 5:1200``; there the whole process group is killed, in
the midst of whatever it is at. With ``-`` the run goes to its end, and the calls of each place are
written to FOLDER/NAME.json.

One job runs in this process, and may start others. Several are forked from it one after the other,
so that they share its imports; how each ended is written to FOLDER/ends.json.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from lightning_mono.callbacks.progress import StageProgress
from lightning_mono.callbacks.stages import StageScheduler

from lightning_mono.checkpoints.run import AtomicCheckpointIO
from lightning_mono.recipe import load_recipe
from lightning_mono.training import Session, fit

Points = Mapping[str, int]
"""Place -> calls of functions in it."""


class Places:
    """Knows where a run is, counts its calls there, and kills it at a point."""

    def __init__(self, point: str) -> None:
        self.place, _, calls = point.rpartition(":")
        self.last = int(calls) if self.place else 0
        self.calls: dict[str, int] = {}
        self._here = "start"

    def enter(self, place: str) -> None:
        self._here = place
        self.calls.setdefault(place, 0)

    def count(self, frame: FrameType, event: str, argument: Any) -> None:
        if event not in ("call", "c_call"):
            return
        self.calls[self._here] = self.calls.get(self._here, 0) + 1
        if self._here == self.place and self.calls[self._here] == self.last:
            os.killpg(0, signal.SIGKILL)

    def watch(self) -> None:
        """Follows the run: its steps, its stages' ends, and the writing of its checkpoints."""
        ended, entered = StageProgress.on_train_batch_end, StageScheduler.on_train_batch_start
        save, train = AtomicCheckpointIO.save_checkpoint, Session.train

        def on_end(callback: StageProgress, trainer: Any, *rest: Any) -> None:
            step = trainer.global_step
            self.enter(f"{'boundary' if step in callback.schedule.ends else 'after'} {step}")
            ended(callback, trainer, *rest)

        def on_start(callback: StageScheduler, trainer: Any, *rest: Any) -> None:
            entered(callback, trainer, *rest)
            self.enter(f"step {trainer.global_step + 1}")

        def on_save(io: AtomicCheckpointIO, state: Any, path: Any, **rest: Any) -> None:
            self.enter(f"writing {Path(path).name}")
            save(io, state, path, **rest)
            self.enter(f"wrote {Path(path).name}")

        def on_train(session: Session) -> Any:
            sys.setprofile(self.count)
            try:
                return train(session)
            finally:
                sys.setprofile(None)

        StageProgress.on_train_batch_end = on_end  # type: ignore[method-assign]
        StageScheduler.on_train_batch_start = on_start  # type: ignore[method-assign]
        AtomicCheckpointIO.save_checkpoint = on_save  # type: ignore[method-assign]
        Session.train = on_train  # type: ignore[method-assign]


def drawn(points: Points, where: Callable[[str], bool], random: random.Random) -> str:
    """A point of one of the places that ``where`` holds for: each place alike, then each call."""
    place = random.choice([place for place in points if where(place)])
    return f"{place}:{random.randint(1, points[place])}"


def boundary(place: str) -> bool:
    """Whether a place lies between a stage's last step and the first of the next."""
    return place.startswith(("boundary", "writing stage=", "wrote stage="))


def writing(place: str) -> bool:
    """Whether a checkpoint is being written in a place."""
    return place.startswith("writing")


def run(recipe: str, folder: Path, job: str) -> None:
    """One run in this process, or what is left of it."""
    name, _, point = job.partition(" ")
    places = Places("" if point == "-" else point)
    first = int(os.environ.get("LOCAL_RANK", "0")) == 0
    if first:
        places.watch()
    fit(load_recipe(recipe, [f"out={folder / name}"]), resume=True)
    if first:
        (folder / f"{name}.json").write_text(json.dumps(places.calls))


def forked(recipe: str, folder: Path, job: str) -> int:
    """The exit status of a job in a process of its own; what killed it, negative."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        os.setpgid(0, 0)
        run(recipe, folder, job)
        status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)


def main(recipe: str, folder: Path, jobs: list[str]) -> None:
    if len(jobs) == 1:
        run(recipe, folder, jobs[0])
        return
    ends = {job: forked(recipe, folder, job) for job in jobs}
    (folder / "ends.json").write_text(json.dumps(ends))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
