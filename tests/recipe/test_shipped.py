"""The recipes that ship: each is sound, does what its first lines say, and follows its paper."""

from __future__ import annotations

import re
import shlex
from math import prod

import pytest

from lightning_mono.build import check_on_meta, group_names
from lightning_mono.data.sources import SourceSpec
from lightning_mono.params import TEXT_PATH, expand, grouped
from lightning_mono.recipe import Recipe, load_recipe, shipped_recipes
from lightning_mono.recipe.resolve import merged_optim
from lightning_mono.studies.load import load_study

CURRICULA = [name for name in shipped_recipes() if name.endswith(("/evip", "/evip_pp"))]
STAGES = ["s1_1_concept", "s1_2_semantic", "s1_3_alignment", "s2_instruction"]


def commands(name: str) -> list[list[str]]:
    """The command lines in a recipe's first comment, split into words."""
    text = re.sub(r"\\\n# +", "", shipped_recipes()[name].read_text(encoding="utf-8"))
    lines = text.splitlines()
    written = [line.lstrip("# ") for line in lines if line.startswith("#   lightning-mono ")]
    return [shlex.split(line, comments=True)[1:] for line in written]


def trained(recipe: Recipe, stage: str) -> set[str]:
    """Parameter groups that a stage trains, aliases resolved."""
    model = check_on_meta(recipe)
    assert model is not None
    return set(expand(recipe.stages[stage].train, group_names(model)))


@pytest.mark.parametrize("name", shipped_recipes())
def test_its_commands_are_sound(name: str) -> None:
    """What fetches nothing of it: the recipe and overrides of every command that names one."""
    run = [words for words in commands(name) if words[0] in ("fit", "plan", "ablate")]
    assert run, "a recipe says how it is run"
    assert run[0][1] == name
    for verb, recipe, *overrides in run:
        if verb == "ablate":
            load_study(recipe, overrides)
            continue
        loaded = load_recipe(recipe, [word for word in overrides if "=" in word])
        assert check_on_meta(loaded) is not None


@pytest.mark.parametrize("name", shipped_recipes())
def test_training_keeps_off_the_test_splits(name: str) -> None:
    recipe = load_recipe(name)
    for data in recipe.data.values():
        assert all(source.split == "train" for source in data.sources.values())
    benchmark = recipe.evaluation.benchmark
    assert benchmark is None or benchmark.split == "test"


@pytest.mark.parametrize("name", shipped_recipes())
def test_all_its_data_are_used_and_all_its_sources_exist(name: str) -> None:
    recipe = load_recipe(name)
    used = {stage.data for stage in recipe.stages.values()}
    assert used == set(recipe.data)
    for data in recipe.data.values():
        for source in data.sources.values():
            if source.source is not None:
                SourceSpec(source.source, source.split, source.options)


@pytest.mark.parametrize("name", CURRICULA)
def test_a_curriculum_has_the_stages_of_the_paper(name: str) -> None:
    """Mono-InternVL, section 3.3: S1.1 and S1.2 train patches and experts, S2 everything."""
    recipe = load_recipe(name)
    assert list(recipe.stages) == STAGES
    concept, semantic, alignment, instruction = (trained(recipe, stage) for stage in STAGES)
    experts = {"experts.ffn"} | ({"experts.attention"} if name.endswith("_pp") else set())
    assert concept == semantic == {"patchifier"} | experts
    assert alignment == concept | (set() if name.endswith("_pp") else {"attention"})
    model = check_on_meta(recipe)
    assert model is not None
    assert instruction == set(group_names(model))


@pytest.mark.parametrize("name", [name for name in CURRICULA if name.endswith("_pp")])
def test_evip_pp_leaves_the_language_alone_before_the_last_stage(name: str) -> None:
    recipe = load_recipe(name)
    assert not any(trained(recipe, stage) & TEXT_PATH for stage in STAGES[:-1])


@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("mono_internvl_2b/evip", [922e6, 258e6, 143e6, 5e6]),
        ("mono_internvl_2b/evip_pp", [250e6, 150e6, 150e6, 7e6]),
    ],
)
def test_the_2b_recipes_have_the_sizes_of_the_papers(name: str, samples: list[float]) -> None:
    recipe = load_recipe(name)
    lengths = [stage.duration.split() for stage in recipe.stages.values()]
    assert [(float(count), unit) for count, unit in lengths] == [(n, "samples") for n in samples]
    tokens = []
    for stage in recipe.stages.values():
        image = recipe.data[stage.data].image
        assert image is not None
        assert image.max_tiles is not None
        tokens.append((image.max_tiles + bool(image.thumbnail)) * 256)
    assert tokens == [1280, 1792, 3328, 6400]


def numbers(name: str) -> dict[str, int]:
    model = check_on_meta(load_recipe(name))
    assert model is not None
    sizes = {key: prod(value.shape) for key, value in model.named_parameters()}
    return {group: sum(sizes[key] for key in names) for group, names in grouped(sizes).items()}


def test_the_2b_models_have_the_parameters_of_the_papers() -> None:
    """3.11 B with 1.2 B in FFN experts (table 5); 302 M more with q, k, v and o as well."""
    evip, plus = numbers("mono_internvl_2b/evip"), numbers("mono_internvl_2b/evip_pp")
    assert evip["experts.ffn"] == 24 * 3 * 2048 * 8192
    assert sum(evip.values()) == pytest.approx(3.11e9, rel=2e-3)
    assert plus["experts.attention"] == 24 * 12_582_912
    assert sum(plus.values()) - sum(evip.values()) == plus["experts.attention"]


def test_fine_tuning_has_the_values_of_the_published_script() -> None:
    recipe = load_recipe("mono_internvl_2b/sft_llava")
    (stage,) = recipe.stages.values()
    data = recipe.data[stage.data]
    assert (recipe.optim.lr, recipe.optim.schedule, recipe.optim.weight_decay) == (
        4e-5,
        "cosine",
        0.01,
    )
    assert (data.sequence_length, data.batch_size) == (2048, 128)
    assert (recipe.image.size, recipe.image.max_tiles, recipe.image.thumbnail) == (448, 6, True)
    assert stage.train == ["everything"]
    rows = data.batch_size // recipe.trainer.devices // stage.accumulate
    assert (recipe.trainer.devices, rows) == (8, 4)
    samples = float(stage.duration.split()[0])
    assert recipe.optim.warmup_steps == round(0.03 * samples / data.batch_size)


def test_the_2b_twin_is_internvls() -> None:
    """InternVL2-2B's 2.21 B parameters; the published scripts' stages, rates and sequences."""
    recipe = load_recipe("mono_internvl_2b/twin")
    sizes = numbers("mono_internvl_2b/twin")
    assert sizes["patchifier.vit"] == 304_012_288
    assert sum(sizes.values()) == pytest.approx(2.21e9, rel=2e-3)
    assert not any(group.startswith("experts") for group in sizes)
    assert sum(sizes.values()) - sizes["patchifier.vit"] - sizes["patchifier.projector"] == (
        sum(size for group, size in numbers("mono_internvl_2b/evip").items() if group in TEXT_PATH)
    )
    assert trained(recipe, "pretrain") == {"patchifier.vit", "patchifier.projector"}
    assert trained(recipe, "finetune") == set(sizes)
    settings = [
        (data.sequence_length, data.batch_size, merged_optim(recipe, name).lr)
        for name, stage in recipe.stages.items()
        for data in [recipe.data[stage.data]]
    ]
    assert settings == [(4_096, 2_048, 2e-5), (8_192, 1_024, 4e-5)]


def test_the_micro_twin_has_the_language_model_of_the_study() -> None:
    study, twin = numbers("micro/study"), numbers("micro/twin")
    for group in set(study) & TEXT_PATH:
        assert twin[group] == study[group]
    assert not any(group.startswith("experts") for group in twin)
