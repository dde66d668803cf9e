"""The runs of a study: each is known by what is in its recipe, and runs once, whoever asks for it.

A cell's folder is named by its content: the recipe's values, those of the recipes it builds on, and
the files it reads. Two studies that share a run share its folder, and a changed recipe runs anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lightning_mono.recipe import Recipe
from lightning_mono.recipe.content import content_key
from lightning_mono.runs import RunFolder
from lightning_mono.studies.load import Arm, Study


@dataclass(frozen=True)
class Cell:
    """One run of one arm.

    Attributes:
        arm: what it changes.
        seed: of weights and of the order of samples.
        recipe: all of it; its folder is the cell's.
    """

    arm: Arm
    seed: int
    recipe: Recipe

    @property
    def run(self) -> RunFolder:
        return RunFolder(Path(self.recipe.out))

    @property
    def file(self) -> Path:
        """The recipe that the run is started with."""
        return self.run.path.with_suffix(".yaml")

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.run.path.with_suffix(".log")

    @property
    def done(self) -> bool:
        return self.run.metrics.is_file()

    def __str__(self) -> str:
        return f"{self.arm.name}, seed {self.seed}"


def cells_of(study: Study, folder: Path) -> list[Cell]:
    """All runs of a study, the first seed of all arms first.

    Args:
        folder: where runs of all studies lie.
    """
    cells = []
    for seed in study.section.seeds:
        for arm in study.arms:
            recipe = study.recipe(arm, seed)
            out = str(folder / content_key(recipe))
            cells.append(Cell(arm, seed, replace(recipe, out=out)))
    return cells
