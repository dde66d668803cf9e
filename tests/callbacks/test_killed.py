"""Runs that are killed at random points end as the run that was not.

Points are drawn under a seed, some of them anywhere, some in the midst of writing a checkpoint, and
some between two stages; `killed.py` says what a point is.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from lightning_mono.checkpoints.run import latest, read, step_of

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("killed.py")


@pytest.fixture(scope="module")
def killed() -> ModuleType:
    """What is in the script."""
    spec = importlib.util.spec_from_file_location("killed", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def jobs(recipe: Path, *names: str) -> subprocess.CompletedProcess:
    """Runs jobs of the script, in a process group of their own that they may kill."""
    environment = dict(os.environ, PYTHONWARNINGS="ignore", OMP_NUM_THREADS="1")
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(recipe), str(recipe.parent), *names],
        env=environment,
        capture_output=True,
        timeout=900,
        cwd=recipe.parent,
        start_new_session=True,
    )


def changed(recipe_file: Path, **trainer: object) -> Path:
    """The recipe with averages, a stage in two parts, and other settings of its trainer."""
    text = recipe_file.read_text().replace("batch_size: 2", "batch_size: 4")
    settings = "".join(f"{key}: {value}, " for key, value in {"ema": 0.8, **trainer}.items())
    text = text.replace("trainer: {", f"trainer: {{{settings}")
    recipe_file.write_text(text.replace("concept: {", "concept: {accumulate: 2, "))
    return recipe_file


def tensors(state: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Weights, averages and moments of a checkpoint by their paths in it."""
    if isinstance(state, torch.Tensor):
        yield path, state
    elif isinstance(state, dict):
        for key, value in state.items():
            yield from tensors(value, f"{path}/{key}")
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            yield from tensors(value, f"{path}/{index}")


def ending(run: Path) -> dict[str, torch.Tensor]:
    """All that a finished run's last checkpoint holds."""
    newest = latest(run / "checkpoints")
    assert newest is not None
    assert step_of(newest) == 14
    assert (run / "model" / "model.safetensors").is_file()
    return dict(tensors(read(newest)))


def torn(run: Path) -> list[Path]:
    """Checkpoints that a kill left half written beside the whole ones."""
    return list((run / "checkpoints").glob(".*.tmp"))


def test_killed_at_twenty_random_points_it_ends_with_the_same_bits(
    recipe_file: Path, killed: ModuleType
) -> None:
    recipe, out = changed(recipe_file), recipe_file.parent
    done = jobs(recipe, "whole -")
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    places = json.loads((out / "whole.json").read_text())
    draw = random.Random(0)
    kinds = [lambda place: True] * 8 + [killed.writing] * 6 + [killed.boundary] * 6
    points = {f"run{n}": killed.drawn(places, kind, draw) for n, kind in enumerate(kinds)}
    # Each is killed, and then goes on to its end.
    both = [f"{name} {p}" for name, point in points.items() for p in (point, "-")]
    done = jobs(recipe, *both)
    ends = json.loads((out / "ends.json").read_text())
    assert {name: ends[f"{name} {point}"] for name, point in points.items()} == dict.fromkeys(
        points, -signal.SIGKILL
    )
    assert {ends[f"{name} -"] for name in points} == {0}, done.stderr.decode()[-3000:]
    assert not any(torn(out / name) for name in points), "half a checkpoint was left"
    expected = ending(out / "whole")
    for name, point in points.items():
        ours = ending(out / name)
        assert ours.keys() == expected.keys(), point
        different = [key for key, value in expected.items() if not torch.equal(ours[key], value)]
        assert different == [], f"killed at {point}"


@pytest.mark.parametrize("strategy", ["mono_ddp", "mono_fsdp2"])
def test_two_processes_killed_three_times_end_as_those_that_were_not(
    recipe_file: Path, killed: ModuleType, strategy: str
) -> None:
    """Within a step, while a checkpoint is written, and between two stages, one after the other."""
    recipe, out = changed(recipe_file, devices=2, strategy=strategy), recipe_file.parent
    done = jobs(recipe, "whole -")
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    places = json.loads((out / "whole.json").read_text())
    draw = random.Random(1)
    for kind in (
        lambda place: place == "step 2",
        lambda place: place == "writing step=00000006.ckpt",
        lambda place: place in ("boundary 9", "wrote stage=concept-step=00000009.ckpt"),
    ):
        point = killed.drawn(places, kind, draw)
        done = jobs(recipe, f"killed {point}")
        assert done.returncode == -signal.SIGKILL, (point, done.stderr.decode()[-2000:])
        assert not (out / "killed" / "model").exists()
    done = jobs(recipe, "killed -")
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    ours, expected = ending(out / "killed"), ending(out / "whole")
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(ours[key], value, atol=1e-6, rtol=0, msg=key)
