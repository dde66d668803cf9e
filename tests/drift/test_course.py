"""A run's stages: what trained, what moved, and that experts are compared with what they were."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lightning_mono.backbones.tokenizer_files import TokenizerFiles
from lightning_mono.drift import beginning, between, course, figures
from lightning_mono.errors import CheckpointError
from lightning_mono.inference import Assistant, make_renderer
from lightning_mono.model import MonoModel
from lightning_mono.recipe import load_recipe
from lightning_mono.starting import saved_weights, stage_ends
from lightning_mono.testing import tiny_backbone
from lightning_mono.training import fit

SEES = """
name: sees
out: {folder}/sees
model:
  backbone: {folder}/llm
  patchifier: {{patch_size: 4, width: 8, merge: 2}}
  experts: {{ffn: all, attention: all}}
image: {{size: 16}}
optim: {{lr: 1.0e-2}}
data:
  pictures:
    sources: {{own: {{source: jsonl, options: {{path: {folder}/pictures.jsonl}}}}}}
    sequence_length: 48
    batch_size: 2
stages:
  concept: {{duration: 2 steps, train: [patchifier, experts.ffn], data: pictures}}
  alignment: {{duration: 2 steps, train: [experts.ffn, attention], data: pictures}}
trainer: {{accelerator: cpu}}
"""


def write_run(recipe_file: Path) -> Path:
    """Writes an LLM and a recipe that lets it see."""
    folder = recipe_file.parent
    backbone = tiny_backbone()
    renderer = make_renderer(MonoModel.graft(backbone), backbone.tokenizer, "plain", None)
    files = TokenizerFiles.of_backbone(backbone)
    Assistant(MonoModel.graft(backbone), renderer, "plain", files).save(folder / "llm")
    (folder / "sees.yaml").write_text(SEES.format(folder=folder))
    return folder


@pytest.fixture
def run(recipe_file: Path) -> Path:
    """A run that trains the text model's attention in its second stage."""
    return fit(load_recipe(write_run(recipe_file) / "sees.yaml")).run.path


def test_what_trained_moved_and_nothing_else(run: Path) -> None:
    concept, alignment = course(run)
    assert (concept.name, alignment.name) == ("concept", "alignment")
    for stage in (concept, alignment):
        assert {group for group, its in stage.moved.items() if its.distance} == set(stage.train)

    llm = MonoModel.from_pretrained(run.parent / "llm").state_dict()
    end = saved_weights(stage_ends(run)["alignment"])
    for (layer, kind), its in alignment.experts.items():
        block, _, part = kind.rpartition(".")
        name = f"layers.{layer}.{block}.{{}}.{part}.weight"
        if kind == "attention.out":
            name = f"layers.{layer}.{kind}.{{}}.weight"
        assert its == between([(end[name.format("visual")], llm[name.format("text")])])
        if kind.startswith("attention"):
            assert its.distance == 0, "text attention has trained, the visual one has not"

    shutil.rmtree(run / "checkpoints")
    (whole,) = course(run)
    assert whole.name == "whole run"
    assert set(whole.train) == {"patchifier", "experts.ffn", "attention"}
    assert whole.experts == alignment.experts


def test_the_beginning_is_the_one_that_the_run_had(recipe_file: Path) -> None:
    """A run that trains text alone still has what it drew at random in the beginning."""
    folder = write_run(recipe_file)
    path = folder / "sees.yaml"
    recipe = load_recipe(path, ["stages.concept.train=[ffn]", "stages.alignment=null", "seed=5"])
    run = fit(recipe).run.path
    (concept,) = course(run)
    assert {group for group, its in concept.moved.items() if its.distance} == {"ffn"}
    assert all(its.distance == 0 for its in concept.experts.values())
    assert beginning(run).get_parameter("patchifier.conv.weight").any()


def test_figures_show_what_they_are_given(run: Path) -> None:
    stages = list(course(run))
    figure = figures.moved_figure(stages)
    words = [text.get_text() for text in figure.axes[0].texts]
    quiet = sum(not its.distance for stage in stages for its in stage.moved.values())
    assert words.count("not one bit") == quiet > 0
    framed = [patch for patch in figure.axes[0].patches if patch.get_linewidth() > 1]
    assert len(framed) == sum(len(stage.train) for stage in stages)

    columns = {"none": {}, **{stage.name: stage.experts for stage in stages}}
    above, below = figures.experts_figure(columns, "title").axes[2::3]
    drawn = {line.get_label(): line.get_ydata() for line in above.lines}
    cosines = {line.get_label(): line.get_ydata() for line in below.lines}
    for (layer, kind), its in stages[-1].experts.items():
        label = kind.split(".")[-1]
        assert drawn[label][layer] == its.distance
        assert cosines[label][layer] == its.cosine


def test_a_run_that_made_its_language_model_from_nothing_is_refused(
    recipe_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(recipe_file, tmp_path / "run" / "recipe.yaml")
    with pytest.raises(CheckpointError, match="made its language model from nothing"):
        list(course(tmp_path / "run"))
