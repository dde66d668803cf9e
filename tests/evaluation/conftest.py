"""A finished run for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from .made_runs import write_run


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
    """The folder of a finished run and its test pictures."""
    folder = tmp_path / "quickstart"
    return folder, write_run(folder)
