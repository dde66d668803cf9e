"""The modular twin trains: by hand, by stages of a recipe, and after a tower of someone else's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_mono.build import build_model
from lightning_mono.checkpoints.run import read
from lightning_mono.errors import RecipeError
from lightning_mono.inference import Assistant
from lightning_mono.model import ExpertsConfig, MonoConfig, MonoModel, PatchifierConfig, VitConfig
from lightning_mono.module import MonoModule
from lightning_mono.objectives import next_token_loss
from lightning_mono.params import expand, grouped
from lightning_mono.recipe import build_stages, load_recipe
from lightning_mono.stages import Optim
from lightning_mono.testing import IMAGE, tiny_backbone, tiny_batch, tiny_decoder
from lightning_mono.training import fit

VIT = VitConfig(layers=2, heads=2, layer_scale=1.0)
TWIN = MonoConfig(
    tiny_decoder(),
    PatchifierConfig(image_size=16, patch_size=4, width=8, kind="vit", vit=VIT),
    ExpertsConfig(),
    IMAGE,
)
OVERRIDES = (
    "model.patchifier={kind: vit, vit: {layers: 2, heads: 2, layer_scale: 1.0}}",
    "model.experts={ffn: none, attention: none}",
    "stages.concept.train=[patchifier.projector]",
    "stages.alignment.train=[patchifier, text]",
    "stages.alignment.lr_scale={patchifier.vit: 0.5}",
)


def test_it_learns_to_tell_two_pictures_apart() -> None:
    torch.manual_seed(0)
    model = MonoModel(TWIN)
    pixels = torch.randn(2, 3, 16, 16)
    batch = tiny_batch([[[[*[IMAGE] * 4, 7]]], [[[*[IMAGE] * 4, 9]]]], TWIN, pixel_values=pixels)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = next_token_loss(model, batch, model.hidden(batch, wanted=batch.wanted))
        loss.backward()
        assert model.patchifier is not None
        for name, parameter in model.patchifier.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name
        optimizer.step()
        losses.append(float(loss))
    # One of four targets is the answer; a coin thrown for it would leave ln 2 / 4.
    assert losses[0] > 3
    assert losses[-1] < 0.05 < 0.69 / 4


def _weights(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = read(path)["state_dict"]
    return {name.removeprefix("model."): value for name, value in state.items()}


def _moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    groups = grouped(before)
    return {
        group
        for group, names in groups.items()
        if any(not torch.equal(before[name], after[name]) for name in names)
    }


def test_stages_train_the_mlp_alone_and_then_everything(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file, OVERRIDES)
    fit(recipe)
    run = Path(recipe.out)
    ends = [
        _weights(next((run / "checkpoints").glob(f"stage={stage}-*")))
        for stage in ("language", "concept", "alignment")
    ]
    assert _moved(ends[0], ends[1]) == {"patchifier.projector"}
    assert _moved(ends[1], ends[2]) == set(grouped(ends[0]))
    vision = json.loads((run / "model" / "config.json").read_text())["vision_config"]
    assert (vision["model_type"], vision["num_hidden_layers"]) == ("intern_vit_6b", 2)
    model = MonoModel.from_pretrained(run)
    for name, value in model.state_dict().items():
        assert torch.equal(value, ends[2][name]), name
    assistant = Assistant.from_pretrained(run)
    picture = (recipe_file.parent / "0.png").read_bytes()
    assert len(assistant.answer([([picture], "what color?")])) == 1


def test_a_recipe_begins_with_a_tower_that_was_trained_before(
    recipe_file: Path, tmp_path: Path
) -> None:
    donor = MonoModel.graft(
        tiny_backbone(), patchifier=PatchifierConfig(16, 4, 8, kind="vit", vit=VIT)
    )
    donor.save_pretrained(tmp_path / "donor")
    home = f"model.patchifier.vit.pretrained={tmp_path / 'donor'}"
    model = build_model(load_recipe(recipe_file, [*OVERRIDES, home]), tiny_backbone()).model
    assert model.patchifier is not None
    assert donor.patchifier is not None
    theirs = donor.patchifier.vit.state_dict()
    assert all(torch.equal(theirs[n], v) for n, v in model.patchifier.vit.state_dict().items())
    with torch.no_grad():
        ratio = model.patchifier(torch.randn(16, 3, 16, 16)).std() / model.embed.weight.std()
    assert 0.5 < float(ratio) < 2


def test_text_is_read_as_by_the_llm_alone() -> None:
    backbone = tiny_backbone()
    alone, twin = MonoModel.graft(backbone), MonoModel.graft(backbone, patchifier=TWIN.patchifier)
    ids = torch.tensor([[5, 6, 7, 8]])
    known = alone.config.decoder.vocab_size
    assert torch.equal(twin(ids).logits[..., :known], alone(ids).logits)


def test_its_groups_are_two_and_one_word_means_both() -> None:
    names = [name for name, _ in MonoModel(TWIN).named_parameters()]
    groups = grouped(names)
    assert set(groups["patchifier.vit"]) | set(groups["patchifier.projector"]) == {
        name for name in names if name.startswith("patchifier.")
    }
    assert "patchifier" not in groups
    assert expand(["patchifier"], groups) == ("patchifier.vit", "patchifier.projector")
    assert expand(["patchifier.projector"], groups) == ("patchifier.projector",)
    plain = grouped(name for name, _ in MonoModel(MonoConfig(tiny_decoder())).named_parameters())
    with pytest.raises(RecipeError, match=r"'patchifier\.vit': only model\.patchifier\.kind=vit"):
        expand(["patchifier.vit"], plain)


@pytest.mark.parametrize(
    ("scales", "rates"),
    [("{patchifier: 0.5}", (0.5, 0.5)), ("{patchifier: 0.5, patchifier.vit: 0.1}", (0.1, 0.5))],
)
def test_a_rate_for_the_patchifier_is_one_for_its_parts(
    scales: str, rates: tuple[float, float], recipe_file: Path
) -> None:
    recipe = load_recipe(recipe_file, [*OVERRIDES, f"stages.concept.lr_scale={scales}"])
    groups = grouped(name for name, _ in MonoModel(TWIN).named_parameters())
    concept = build_stages(recipe, groups, lambda *_: 5).stages[1]
    assert tuple(concept.lr_scale[f"patchifier.{part}"] for part in ("vit", "projector")) == rates


def test_only_its_matrices_decay() -> None:
    module = MonoModule(MonoModel(TWIN), Optim(weight_decay=0.1))
    named = {id(p): name for name, p in module.model.named_parameters()}
    for group in module.configure_optimizers().param_groups:
        for parameter in group["params"]:
            matrix = named[id(parameter)].endswith("weight") and parameter.ndim > 1
            assert (group["weight_decay"] > 0) == matrix, named[id(parameter)]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("model.patchifier.vit.heads=3", "model.patchifier.vit.heads: 3 heads do not divide"),
        ("model.patchifier.vit.norm=batch", "model.patchifier.vit.norm: 'batch' is none of"),
        ("model.patchifier.vit.layers=0", "model.patchifier.vit.layers: 0 must be above 0"),
        ("model.patchifier.kind=conv", "model.patchifier.vit: kind conv has no transformer"),
        ("model.patchifier.vit.pretrained=./none", "model.patchifier.vit.pretrained: ./none does"),
        ("stages.concept.train=[patchifier.tower]", "'patchifier.tower' is none of"),
    ],
)
def test_recipes_that_cannot_be_say_why(override: str, says: str, recipe_file: Path) -> None:
    with pytest.raises(RecipeError, match=says.replace(".", r"\.")):
        load_recipe(recipe_file, [*OVERRIDES, override])


def test_parts_of_a_patchifier_that_has_none_are_refused(recipe_file: Path) -> None:
    with pytest.raises(RecipeError, match=r"stages\.concept\.train: the model has no 'patchifier"):
        load_recipe(recipe_file, ["stages.concept.train=[patchifier.vit]"])
