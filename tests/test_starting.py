"""A recipe begins with the weights that a stage of another run ended with, or says why not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from lightning_mono.backbones import save_backbone
from lightning_mono.checkpoints.run import read
from lightning_mono.errors import CheckpointError
from lightning_mono.journal import Journal
from lightning_mono.recipe import load_recipe
from lightning_mono.runs import RunFolder
from lightning_mono.starting import saved_weights, starting_point, vocabulary_mark
from lightning_mono.testing import tiny_backbone
from lightning_mono.training import Session, fit

SHORT = ["trainer.max_steps=6", "evaluation.retention_source=null"]


def begun(recipe_file: Path, *overrides: str) -> dict[str, torch.Tensor]:
    """The weights with which a recipe begins."""
    recipe = load_recipe(recipe_file, [f"out={recipe_file.parent}/begun", *overrides])
    run = RunFolder(Path(recipe.out))
    return Session(recipe, run, Journal(run.journal)).mono.model.state_dict()


def ended(recipe_file: Path, *overrides: str) -> Path:
    return fit(load_recipe(recipe_file, [*SHORT, *overrides])).run.path


def test_it_begins_with_the_weights_at_the_end_of_the_stage(recipe_file: Path) -> None:
    run = ended(recipe_file)
    saved = saved_weights(starting_point(f"{run}/language"))
    assert read(starting_point(f"{run}/language"))["global_step"] == 4
    for name in (f"{run}/language", str(starting_point(f"{run}/language"))):
        ours = begun(recipe_file, f"model.init_from={name}")
        assert ours.keys() == saved.keys()
        assert all(torch.equal(value, saved[key]) for key, value in ours.items())
    other = begun(recipe_file)
    assert any(not torch.equal(value, saved[key]) for key, value in other.items())


def test_experts_that_it_lacks_are_copies_of_its_text_weights(recipe_file: Path) -> None:
    fewer = ["model.experts.attention=none", "stages.alignment.train=[experts, attention]"]
    run = ended(recipe_file, *fewer)
    saved = saved_weights(starting_point(f"{run}/concept"))
    ours = begun(recipe_file, f"model.init_from={run}/concept")
    new = ours.keys() - saved.keys()
    assert new
    assert all(".attention." in name and ".visual." in name for name in new)
    for name, value in ours.items():
        source = name if name in saved else name.replace(".visual.", ".text.")
        assert torch.equal(value, saved[source]), name


@pytest.mark.parametrize("scheme", ["nf4", "int8"])
def test_text_that_was_rounded_is_the_backbones(recipe_file: Path, scheme: str) -> None:
    language = recipe_file.parent / "language"
    save_backbone(language, tiny_backbone())
    backbone = ["model.scratch=null", f"model.backbone={language}"]
    only = [*backbone, "stages.language.train=[patchifier]", "stages.alignment.train=[experts]"]
    run = ended(recipe_file, *only, f"model.quantize={scheme}")
    ours = begun(recipe_file, *backbone, f"model.init_from={run}/concept")
    plain, saved = begun(recipe_file, *backbone), saved_weights(starting_point(f"{run}/concept"))
    for name, value in ours.items():
        expected = saved[name] if saved[name].is_floating_point() else plain[name]
        assert torch.equal(value, expected), name
    save_backbone(recipe_file.parent / "other", tiny_backbone(seed=1))
    other = ["model.scratch=null", f"model.backbone={recipe_file.parent}/other"]
    with pytest.raises(CheckpointError, match=r"was rounded there from another weight"):
        begun(recipe_file, *other, f"model.init_from={run}/concept")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ["model.experts.attention=none"],
            r"holds layers\.0\.attention\.qkv\.visual\.q\.weight, which this recipe's model lacks",
        ),
        (["model.scratch.ffn_size=64"], r"\.ffn\.text\.gate\.weight is \(48, 32\), .* \(64, 32\)"),
        (["model.scratch.layers=3"], r"has no layers\.2\..*, which this recipe's model has"),
        (["image.size=32"], r"patchifier\.positions is .*image sections like that run's"),
    ],
)
def test_another_model_is_refused_in_one_line(
    recipe_file: Path, overrides: list[str], says: str
) -> None:
    run = ended(recipe_file)
    with pytest.raises(CheckpointError, match=says) as caught:
        begun(recipe_file, f"model.init_from={run}/language", *overrides)
    assert "\n" not in str(caught.value)
    assert "stage=language-step=00000004.ckpt" in str(caught.value)


def test_another_tokenizer_is_refused(recipe_file: Path) -> None:
    run = ended(recipe_file)
    for page in (recipe_file.parent / "text").iterdir():
        page.write_text("other words altogether, of which none was ever read before. " * 9)
    shutil.rmtree(recipe_file.parent / "cache")
    with pytest.raises(CheckpointError, match=r"its run has another tokenizer"):
        begun(recipe_file, f"model.init_from={run}/language", "model.scratch.vocab_size=300")


def test_a_stage_that_has_not_ended_is_named_with_those_that_have(recipe_file: Path) -> None:
    run = ended(recipe_file)
    with pytest.raises(CheckpointError, match=r"no stage 'alignment' .*: language, concept\)"):
        starting_point(f"{run}/alignment")
    with pytest.raises(CheckpointError, match=r"none has yet"):
        starting_point(f"{recipe_file.parent}/nowhere/language")
    with pytest.raises(CheckpointError, match=r"gone\.ckpt does not exist"):
        starting_point(f"{recipe_file.parent}/gone.ckpt")


def test_vocabularies_differ_by_words_and_ids() -> None:
    one, two = tiny_backbone().tokenizer, tiny_backbone().tokenizer
    assert vocabulary_mark(one) == vocabulary_mark(two)
    two.add_tokens(["another"])
    assert vocabulary_mark(one) != vocabulary_mark(two)
