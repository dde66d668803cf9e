"""Runs a study as far as it is not done, and reports it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_mono.errors import UserError
from lightning_mono.evaluation.report.words import duration
from lightning_mono.studies.cells import cells_of
from lightning_mono.studies.load import Study
from lightning_mono.studies.report import write_report
from lightning_mono.studies.results import StudyResults, add_up
from lightning_mono.studies.room import slots
from lightning_mono.studies.runner import Ended, run_cells

CELLS = "cells"
"""Folder of the runs of all studies, in the folder of all studies."""


def run_study(
    study: Study,
    folder: Path,
    *,
    jobs: int | None = None,
    keep_checkpoints: bool = False,
    report_only: bool = False,
    say: Callable[[str], None],
) -> tuple[StudyResults, Path]:
    """Runs what is not done; writes the report.

    Args:
        study: what to run.
        folder: of all studies; the report goes to a folder of the study's name in it.
        jobs: runs at a time; None for as many as there is room for.
        keep_checkpoints: of runs that are done.
        report_only: run nothing.
        say: is told of each run that ends.

    Returns:
        The results, and the path of the page.

    Raises:
        UserError: nothing is done, so there is nothing to report.
    """
    cells = cells_of(study, folder / CELLS)
    failures: dict[str, str] = {}
    missing = len({cell.recipe.out for cell in cells if not cell.done})
    if missing and not report_only:
        room = slots(cells[0].recipe, jobs)
        say(f"{missing} of {len(cells)} runs to do, {min(missing, len(room))} at a time")
        failures = run_cells(
            cells, room, keep_checkpoints=keep_checkpoints, note=_Counted(missing, say)
        )
    if not any(cell.done for cell in cells):
        first = next((f"{c}: {failures[c.recipe.out]}" for c in cells if failures), "none was run")
        raise UserError(f"{study.path}: no run is done; {first}")
    results = add_up(study, cells, failures)
    return results, write_report(results, folder / study.section.name)


def list_runs(study: Study, folder: Path) -> list[dict[str, Any]]:
    """Every run of a study: its name, its folder, and whether it is done."""
    return [
        {"name": str(cell), "folder": cell.recipe.out, "done": cell.done}
        for cell in cells_of(study, folder / CELLS)
    ]


class _Counted:
    """Says of each run that ends what it came to, and how many are left."""

    def __init__(self, total: int, say: Callable[[str], None]) -> None:
        self.total, self.ended, self.say = total, 0, say

    def __call__(self, ended: Ended) -> None:
        self.ended += 1
        result = "done" if ended.failure is None else f"failed: {ended.failure}"
        self.say(f"[{self.ended}/{self.total}] {ended.cell}: {result}, {duration(ended.seconds)}")
