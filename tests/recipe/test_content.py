"""A run is known by its content: what changes its figures runs anew, what does not is shared."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_mono.recipe import Recipe, load_recipe, to_yaml
from lightning_mono.recipe.content import content_key
from lightning_mono.runs import dependency
from lightning_mono.testing import tiny_model, tiny_recipe


def test_names_and_folders_are_no_content() -> None:
    recipe = tiny_recipe()
    assert content_key(replace(recipe, name="other", out="elsewhere")) == content_key(recipe)


@pytest.mark.parametrize(
    "changes",
    [
        ["seed=1"],
        ["optim.lr=2e-3"],
        ["model.experts.ffn=first:1"],
        ["stages.first.duration=4 steps"],
        ["stages.second=null"],
        ["data.text.sources.docs.weight=2"],
        ["evaluation.retention_source.source=stdlib_docs"],
    ],
)
def test_every_value_is_content(changes: list[str]) -> None:
    assert content_key(tiny_recipe(*changes)) != content_key(tiny_recipe())


def test_a_default_that_is_written_out_is_the_same_content() -> None:
    assert content_key(tiny_recipe("optim.grad_clip=1.0")) == content_key(tiny_recipe())


def test_what_a_recipe_builds_on_is_content(tmp_path: Path) -> None:
    def content(rate: str) -> str:
        language = load_recipe("micro/language", [f"optim.lr={rate}"])
        path = tmp_path / "language.yaml"
        path.write_text(to_yaml(language))
        return content_key(load_recipe("micro/study", [f"model.backbone=recipe:{path}"]))

    assert content("1e-3") != content("2e-3")


def test_files_that_a_recipe_reads_are_content(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny_model().save_pretrained(folder)

    def recipe() -> Recipe:
        start = tiny_recipe()
        return replace(start, model=replace(start.model, init_from=str(folder)))

    before = content_key(recipe())
    assert content_key(recipe()) == before
    config = folder / "config.json"
    os.utime(config, ns=(0, config.stat().st_mtime_ns + 1))
    assert content_key(recipe()) != before


def test_what_a_run_builds_on_has_a_folder_for_its_content(tmp_path: Path) -> None:
    """What it builds on in turn is part of that: a new language model is another baseline."""

    def folder(rate: str) -> str:
        language, blind = tmp_path / "language.yaml", tmp_path / "blind.yaml"
        language.write_text(to_yaml(load_recipe("micro/language", [f"optim.lr={rate}"])))
        changes = [f"model.backbone=recipe:{language}"]
        blind.write_text(to_yaml(load_recipe("micro/question_only", changes)))
        return dependency(str(blind), tiny_recipe()).out

    first = folder("1e-3")
    assert folder("1e-3") == first
    assert folder("2e-3") != first
