"""A monolithic model is trained further: the same at the start, and with experts that are new."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from lightning_mono.build import check_on_meta, pretrained_model
from lightning_mono.errors import CheckpointError, RecipeError
from lightning_mono.inference import Assistant, make_renderer
from lightning_mono.model import ExpertsConfig, MonoModel, PatchifierConfig
from lightning_mono.model.graft import with_experts
from lightning_mono.recipe import Recipe, load_recipe
from lightning_mono.testing import IMAGE, randomize, tiny_backbone, tiny_config, tiny_model
from lightning_mono.training import fit

PUBLISHED = """
name: further
out: {folder}/further
model: {{pretrained: {folder}/model, experts: {{attention: last:1}}}}
image: {{size: 16}}
data:
  pictures:
    sources: {{own: {{source: jsonl, options: {{path: {folder}/pictures.jsonl}}}}}}
    sequence_length: 64
    batch_size: 2
stages:
  attention: {{duration: 3 steps, train: [experts.attention], data: pictures}}
trainer: {{accelerator: cpu}}
evaluation:
  retention_source: {{source: text_files, options: {{path: {folder}/text}}}}
  retention_tokens: 256
"""


@pytest.fixture
def folder(recipe_file: Path) -> Path:
    """A checkpoint in the published layout beside some pictures."""
    backbone = tiny_backbone(family="internlm2")
    model = MonoModel.graft(
        backbone, patchifier=PatchifierConfig(16, 4, 6), experts=ExpertsConfig(ffn=(0, 1))
    )
    randomize(model, seed=1)
    images = None
    assistant = Assistant(
        model, make_renderer(model, backbone.tokenizer, "chatml", images), "chatml"
    )
    assistant.save(recipe_file.parent / "model")
    return recipe_file.parent


def _recipe(folder: Path, overrides: Sequence[str] = ()) -> Recipe:
    path = folder / "further.yaml"
    path.write_text(PUBLISHED.format(folder=folder))
    return load_recipe(path, list(overrides))


def test_training_goes_on_from_a_checkpoint_with_new_experts(folder: Path) -> None:
    recipe = _recipe(folder)
    assert check_on_meta(recipe).config.experts == ExpertsConfig(ffn=(0, 1), attention=(1,))
    before = MonoModel.from_pretrained(folder / "model").state_dict()
    result = fit(recipe)
    assert result.metrics["retention"]["text_logits_identical"]
    after = MonoModel.from_pretrained(result.run.model).state_dict()
    new = {name for name in after if name not in before}
    assert new == {name for name in after if "layers.1.attention." in name and ".visual." in name}
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert any(not torch.equal(after[n], after[n.replace(".visual.", ".text.")]) for n in new)
    again = fit(_recipe(folder, [f"model.pretrained={result.run.path}", f"out={folder}/third"]))
    assert again.assistant.chat == "chatml"


def test_new_experts_change_nothing_until_they_learn() -> None:
    model = tiny_model(tiny_config(ExpertsConfig(ffn=(0,))), dtype=torch.float64)
    grown = with_experts(model, ExpertsConfig(attention=(0, 1), norms=(1,))).eval()
    assert grown.config.experts == ExpertsConfig((0,), (0, 1), (1,))
    ids = torch.tensor([[5, *[IMAGE] * 4, 6]])
    pixels = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        ours, theirs = grown(ids, pixels).logits, model(ids, pixels).logits
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)
    assert with_experts(grown, ExpertsConfig(ffn=(0,))) is grown


def test_another_tile_size_comes_from_the_recipe(folder: Path) -> None:
    mono = pretrained_model(_recipe(folder, ["image.size=24", "image.max_tiles=2"]))
    assert mono.renderer.tokens_per_tile == 9
    assert mono.renderer.images.max_tiles == 2
    assert mono.model.config.patchifier == PatchifierConfig(24, 4, 6, table_size=16)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("model.pretrained=./nowhere", "model.pretrained: ./nowhere does not exist"),
        ("model.backbone=smollm2-135m", "model: name a backbone, or a pretrained model"),
        ("model.patchifier={width: 8}", "model.patchifier: the pretrained model brings its own"),
        ("model.experts.attention=[5]", "model.experts.attention: layer 5 does not exist"),
        ("stages.attention.train=[head, experts.norms]", "no parameters in 'experts.norms'"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_runs(
    override: str, says: str, folder: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        check_on_meta(_recipe(folder, [override]))
    assert says in str(caught.value)


def test_a_broken_checkpoint_is_named(folder: Path) -> None:
    (folder / "model" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no key model_type"):
        check_on_meta(_recipe(folder))
