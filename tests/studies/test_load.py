"""A study is arms and seeds of a recipe; all that is wrong with it is said at once, and clearly."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_mono.build import check_on_meta
from lightning_mono.errors import RecipeError
from lightning_mono.studies.load import load_study, shipped_studies

Write = Callable[..., Path]


def _refused(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_study(path, overrides)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


def test_values_of_a_key_are_arms(write_study: Write) -> None:
    study = load_study(write_study())
    assert [arm.name for arm in study.arms] == ["0.01", "0.03"]
    recipe = study.recipe(study.arms[1], 7)
    assert (recipe.optim.lr, recipe.seed) == (0.03, 7)
    assert recipe.stages.keys() == {"first", "second"}


def test_axes_are_combined_the_first_changing_slowest(write_study: Write) -> None:
    more = """axes:
  optim.lr: [0.01, 0.03]
  length:
    short: {stages.second: null}
    long: {stages.second.duration: 9 steps, optim.betas: [0.9, 0.99]}
"""
    study = load_study(
        write_study(("axes:\n  optim.lr: [0.01, 0.03]\n", more), ('"0.01"', '"lr 0.01, long"'))
    )
    assert [arm.name for arm in study.arms] == [
        "lr 0.01, short",
        "lr 0.01, long",
        "lr 0.03, short",
        "lr 0.03, long",
    ]
    assert list(study.recipe(study.arms[2], 0).stages) == ["first"]
    long = study.recipe(study.arms[3], 0)
    assert (long.stages["second"].duration, long.optim.betas) == ("9 steps", [0.9, 0.99])


def test_what_all_runs_change_and_what_the_command_line_does(write_study: Write) -> None:
    path = write_study(("baseline:", "set: {optim.weight_decay: 0.5}\nbaseline:"))
    study = load_study(path, ["optim.eps=1e-6", "trainer.max_steps=2"], [4, 5])
    recipe = study.recipe(study.arms[0], 4)
    assert (recipe.optim.weight_decay, recipe.optim.eps, recipe.trainer.max_steps) == (0.5, 1e-6, 2)
    assert study.section.seeds == [4, 5]
    assert shlex.split(study.command)[1:] == [
        "ablate", str(path), "optim.eps=1e-6", "trainer.max_steps=2"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("replaced", "says"),
    [
        (('"0.01"', '"0.1"'), "baseline: no arm is called '0.1'; did you mean '0.01'?"),
        (("seeds: [0, 1]", "seeds: [1, 1]"), "seeds: [1, 1] must be different numbers"),
        (("seeds: [0, 1]", "seeds: [a]"), "seeds[0]: Value 'a'"),
        (("[0.01, 0.03]", "[0.01, 0.01]"), "axes: two arms are called '0.01'"),
        (("[0.01, 0.03]", "0.01"), "axes.optim.lr: give a list of values"),
        (("form: number", "form: share"), "measures.perplexity.form: 'share' is neither"),
        (("better: lower", "better: less"), "measures.perplexity.better: 'less' is neither"),
        (("    path: retention.perplexity_after\n", ""), "measures.perplexity.path: missing"),
        (("question:", "questoin:"), "questoin: Key 'questoin' not in"),
        (("optim.lr:", "optim.lrr:"), "optim.lrr: Key"),
        (("base: tiny.yaml", "base: tinny"), "no recipe 'tinny'"),
    ],
)
def test_what_is_wrong_is_said(write_study: Write, replaced: tuple[str, str], says: str) -> None:
    path = write_study(replaced)
    with pytest.raises(RecipeError) as caught:
        load_study(path)
    assert says in str(caught.value)


def test_every_arm_is_checked_before_any_runs(write_study: Write) -> None:
    found = _refused(write_study(("[0.01, 0.03]", "[0.01, -1, x]")))
    assert any(line.startswith("arm '-1': ") and "must be above 0" in line for line in found)
    assert any(line.startswith("arm 'x': ") and "optim.lr" in line for line in found)


def test_an_override_of_what_an_arm_sets_is_refused(write_study: Write) -> None:
    assert _refused(write_study(), "optim.lr=1") == ["it sets optim.lr itself; do not override it"]
    axes = "rate:\n    a: {optim.lr: 0.01}\n    b: {}"
    path = write_study(("optim.lr: [0.01, 0.03]", axes), ('"0.01"', "b"))
    assert _refused(path, "optim.lr=1", "seed=3") == [
        "seed: a study sets it itself; give seeds with --seeds",
        "arm 'a': it sets optim.lr itself; do not override it",
    ]


def test_what_is_wrong_in_all_arms_is_said_once(write_study: Write) -> None:
    (line,) = _refused(write_study(), "optim.epss=1")
    assert "optim.epss" in line


def test_an_unknown_study_names_its_nearest_neighbour() -> None:
    with pytest.raises(RecipeError, match="no study 'placment'; did you mean 'placement'"):
        load_study("placment")


@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_studies_are_sound(name: str) -> None:
    study = load_study(name)
    assert study.section.name == name
    assert len(study.section.seeds) >= 3
    for arm in study.arms:
        assert check_on_meta(study.recipe(arm, 0)) is not None, arm.name
    first, *comment = study.path.read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(r"# \S.*\.", first)
    assert f"#   lightning-mono ablate {name}" in comment
    assert study.recipe(study.arms[0], 0).evaluation.question_only is not None
