"""A run folder has one writer at a time, and nothing half written stays in it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lightning_mono import runs, training
from lightning_mono.errors import RecipeError
from lightning_mono.recipe import Recipe, load_recipe
from lightning_mono.runs import RunFolder, only_writer, open_run
from lightning_mono.testing import write_tiny_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return load_recipe(write_tiny_recipe(tmp_path), [f"out={tmp_path}/runs/one"])


def test_a_second_writer_is_refused_in_one_line(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "PATIENCE", 0.01)
    with only_writer(recipe):
        with pytest.raises(RecipeError, match=r"runs/one is being written by another") as refused:
            training.fit(recipe)
        assert "\n" not in str(refused.value)
        assert not Path(recipe.out).exists()
    with only_writer(recipe):  # released
        pass


def test_what_two_runs_build_on_is_made_once_and_waited_for(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_fit", lambda *_, **__: pytest.fail("made twice"))
    found: list[RunFolder] = []
    with only_writer(recipe):
        second = threading.Thread(target=lambda: found.append(training.ensure(recipe)))
        second.start()
        second.join(0.2)
        assert second.is_alive()
        run = RunFolder(Path(recipe.out))
        run.path.mkdir()
        run.metrics.write_text("{}")
    second.join(5)
    assert found == [run]


def test_processes_of_one_run_do_not_keep_each_other_out(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    with only_writer(recipe):
        monkeypatch.setenv("LOCAL_RANK", "1")
        with only_writer(recipe):
            pass


def test_resuming_removes_half_a_checkpoint_and_keeps_whole_ones(recipe: Recipe) -> None:
    folder = open_run(recipe).checkpoints
    folder.mkdir()
    for name in (".step=3.ckpt.1.2.tmp", "step=2.ckpt"):
        (folder / name).touch()
    open_run(recipe, resume=True)
    assert [path.name for path in folder.iterdir()] == ["step=2.ckpt"]
