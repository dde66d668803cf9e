"""A run folder: where everything lies, and when it may be written to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from lightning_mono.checkpoints.atomic import replacing
from lightning_mono.errors import RecipeError
from lightning_mono.recipe import Recipe, load_recipe, to_yaml
from lightning_mono.recipe.content import content_key

PATIENCE = 15.0
"""Seconds in which what a killed run has started notices, and ends as well."""


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, by name."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def reference(self) -> Path:
        """Logits and continuations of text-only prompts before the first step."""
        return self.path / "retention.safetensors"

    @property
    def model(self) -> Path:
        """The trained model; it is there when training is done.

        A language model is in Hugging Face layout there, and is what other recipes build on.
        """
        return self.path / "model"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.jsonl"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def trained(self) -> bool:
        return (self.model / "config.json").is_file()


@contextmanager
def only_writer(recipe: Recipe, *, wait: bool = False) -> Iterator[None]:
    """Keeps other processes from writing to a recipe's folder in the meantime.

    Args:
        wait: for as long as another one does; otherwise that is an error.

    Raises:
        RecipeError: another process is writing to it.
    """
    if is_follower():
        yield
        return
    path = Path(recipe.out).expanduser().absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=-1 if wait else PATIENCE)
    except Timeout:
        raise RecipeError(
            f"{recipe.out} is being written by another process: wait for it, or write elsewhere "
            "with out=FOLDER"
        ) from None
    try:
        yield
    finally:
        lock.release()


def open_run(recipe: Recipe, *, resume: bool = False, fresh: bool = False) -> RunFolder:
    """Opens the folder that a recipe writes to, and removes what a killed run wrote half.

    Args:
        resume: go on with what is there, if anything.
        fresh: delete what is there.

    Raises:
        RecipeError: there is a run already, and neither was asked for.
    """
    run = RunFolder(Path(recipe.out).expanduser())
    if is_follower():
        return run
    if run.recipe.exists():
        if fresh:
            shutil.rmtree(run.path)
        elif not resume:
            raise RecipeError(
                f"{run.path} holds a run already: go on with --resume, start anew with --fresh, "
                "or write elsewhere with out=FOLDER"
            )
    for half in run.checkpoints.glob(".*.tmp"):
        half.unlink()
    with replacing(run.recipe) as temporary:
        temporary.write_text(to_yaml(recipe), encoding="utf-8")
    return run


def is_follower() -> bool:
    """Whether this process was started by the first one of a distributed run."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0


def run_of(path: str | Path) -> tuple[RunFolder, Recipe]:
    """A run that exists, with the recipe it was made by.

    Raises:
        RecipeError: the folder is no run.
    """
    run = RunFolder(Path(path))
    if not run.recipe.is_file():
        raise RecipeError(f"{path} is no run folder: it has no recipe.yaml")
    return run, load_recipe(run.recipe)


def dependency(name: str, recipe: Recipe) -> Recipe:
    """A recipe that another one builds on, with a folder of its own beside the other's.

    The folder's name carries a key of its content, so that a changed recipe runs anew and an
    unchanged one runs once, however many others build on it.
    """
    inner = load_recipe(name)
    inner.trainer.accelerator = recipe.trainer.accelerator
    folder = f"{inner.name}-{content_key(inner)[:8]}"
    return replace(inner, out=str(Path(recipe.out).parent / folder))


def finished(name: str | None, recipe: Recipe) -> RunFolder | None:
    """The finished run of a recipe that another one builds on, if it is there."""
    if name is None:
        return None
    run = RunFolder(Path(dependency(name, recipe).out))
    return run if run.metrics.is_file() else None
