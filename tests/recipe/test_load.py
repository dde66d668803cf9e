"""Files, bases and overrides become one typed recipe; all that is wrong is said at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning_mono.kernels import KERNELS

from lightning_mono.build import check_on_meta
from lightning_mono.data.sources import SOURCES
from lightning_mono.data.templates import CHAT_TEMPLATES
from lightning_mono.errors import RecipeError
from lightning_mono.model.config import PATCHIFIER_KINDS
from lightning_mono.recipe import load_recipe, load_with_origins, shipped_recipes, to_yaml, validate
from lightning_mono.recipe.show import with_origins
from lightning_mono.testing import TINY_RECIPE, tiny_recipe, write_tiny_recipe
from lightning_mono.training import fit


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads_and_builds_without_weights(name: str) -> None:
    recipe = load_recipe(name)
    model = check_on_meta(recipe)
    assert model is not None, "its shape should be known without fetching anything"
    assert all(parameter.device.type == "meta" for parameter in model.parameters())
    first = shipped_recipes()[name].read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# "), "a recipe opens with what it is for"


@pytest.mark.parametrize("name", shipped_recipes())
def test_written_out_it_loads_back_equal(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    path = tmp_path / "again.yaml"
    path.write_text(to_yaml(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe


def test_the_tiny_recipe_is_sound() -> None:
    recipe = tiny_recipe()
    model = check_on_meta(recipe)
    assert model.config.experts.attention == (1,)
    assert list(recipe.stages) == ["first", "second"]


def test_the_words_it_checks_are_those_that_exist() -> None:
    assert set(validate.SOURCES) == set(SOURCES)
    assert set(validate.KERNELS) == {"auto", *KERNELS}
    assert set(validate.CHATS) == set(CHAT_TEMPLATES)
    assert validate.PATCHIFIERS == PATCHIFIER_KINDS


def test_what_is_set_to_null_is_left_out(tmp_path: Path) -> None:
    more = "{docs: {source: stdlib_docs}, other: {source: easy_vqa}}"
    text = TINY_RECIPE.replace("{docs: {source: stdlib_docs}}", more)
    path = write_tiny_recipe(tmp_path, text.replace("data:\n", "data:\n  spare: {sources: {}}\n"))
    changes = ["stages.first=null", "data.text.sources.other=null", "data.spare=null"]
    recipe = load_recipe(path, changes)
    assert list(recipe.stages) == ["second"]
    assert list(recipe.data) == ["text"]
    assert list(recipe.data["text"].sources) == ["docs"]
    (tmp_path / "derived.yaml").write_text("base: tiny.yaml\nstages: {first: null}\n")
    assert list(load_recipe(tmp_path / "derived.yaml", changes[1:]).stages) == ["second"]
    again = load_recipe(
        path, [*changes, "stages.first={duration: 1 epochs, train: [norms], data: text}"]
    )
    assert list(again.stages) == ["second", "first"], "it may be given anew"


@pytest.mark.parametrize("key", ["stages.frist", "data.txt", "data.text.sources.dogs"])
def test_leaving_out_what_is_not_there_is_refused(key: str) -> None:
    with pytest.raises(RecipeError, match=key):
        tiny_recipe(f"{key}=null")


def test_overrides_win_in_order_and_keep_their_type() -> None:
    recipe = tiny_recipe(
        "optim.lr=1", "optim.lr=3e-4", "model.experts.ffn=[0]", "stages.second.optim.lr=0.5"
    )
    assert recipe.optim.lr == 3e-4
    assert isinstance(recipe.optim.lr, float)
    assert recipe.model.experts.ffn == [0]
    assert recipe.stages["second"].optim == {"lr": 0.5}
    assert recipe.stages["first"].optim == {}


def test_the_out_folder_follows_the_name() -> None:
    assert tiny_recipe().out == "runs/tiny"
    assert tiny_recipe("name=other").out == "runs/other"
    assert tiny_recipe("out=here").out == "here"


def test_a_base_is_read_first_and_its_keys_are_merged(tmp_path: Path) -> None:
    write_tiny_recipe(tmp_path)
    (tmp_path / "sub").mkdir()
    middle = tmp_path / "sub" / "middle.yaml"
    middle.write_text("base: ../tiny.yaml\nname: middle\noptim: {lr: 0.5, eps: 0.1}\n")
    last = tmp_path / "sub" / "last.yaml"
    last.write_text("base: middle.yaml\noptim: {lr: 0.25}\n")
    recipe, origins = load_with_origins(last, ["seed=7"])
    assert (recipe.name, recipe.optim.lr, recipe.optim.eps, recipe.seed) == ("middle", 0.25, 0.1, 7)
    assert recipe.optim.warmup_steps == 2
    assert origins["optim.lr"] == str(last)
    assert origins["optim.eps"] == str(middle)
    assert origins["optim.warmup_steps"].endswith("tiny.yaml")
    assert origins["seed"] == "override seed=7"
    assert "optim.weight_decay" not in origins


def test_shown_lines_name_what_set_them(tmp_path: Path) -> None:
    recipe, origins = load_with_origins(write_tiny_recipe(tmp_path), ["optim.lr=0.5"])
    shown = with_origins(recipe, origins)
    lines = {
        line.split("#")[0].strip(): line.partition("#")[2].strip() for line in shown.split("\n")
    }
    assert lines["lr: 0.5"] == "override optim.lr=0.5"
    assert lines["warmup_steps: 2"] == "tiny.yaml"
    assert lines["weight_decay: 0.05"] == "default"
    again = tmp_path / "again.yaml"
    again.write_text(shown)
    assert load_recipe(again) == recipe


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("base: tiny.yaml\n", "does a base name itself"),
        ("base: nowhere.yaml\n", "nowhere.yaml does not exist"),
        ("a: [\n", "not valid YAML"),
        ("- a\n", "mapping"),
        ("", "name: missing"),
    ],
)
def test_files_that_are_no_recipe(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        load_recipe(write_tiny_recipe(tmp_path, text))
    assert "tiny.yaml" in str(caught.value)


def test_missing_recipes_are_named_with_what_ships(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"mean 'quickstart'.*micro/language"):
        load_recipe("quikstart")
    with pytest.raises(RecipeError, match=r"nothing\.yaml: no such file.*quickstart"):
        load_recipe(tmp_path / "nothing.yaml")
    assert load_recipe("recipes/quickstart.yaml").name == "quickstart"


@pytest.mark.parametrize("override", ["optim.lr", "=3", "optim.lr=[", "optim.lr=${nothing}"])
def test_bad_overrides_are_refused(override: str) -> None:
    with pytest.raises(RecipeError, match=r"override|nothing"):
        tiny_recipe(override)


EVERYTHING_WRONG = """
model:
  scratch: {layers: 2, hidden_size: 15, heads: 4, kv_heads: 3, ffn_size: 24, vocab_size: 300}
  patchifier: {kind: conf, patch_sise: 4, width: wide}
  experts: {ffn: first:3, attention: sometimes, norms: [0, 9]}
image: {size: 15}
optim: {betas: [0.9]}
data:
  text: {sources: {docs: {source: stdlib_doc}}, sequence_length: 0}
  empty: {}
  lost: {sources: {a: {source: jsonl}, b: {source: jsonl, path: /no/where}}}
stages:
  first: {duration: 3 moons, train: [patchifer], data: txt, optim: {lrr: 1}}
  second: {duration: 3 steps, train: [], data: text, lr_scale: {atention: 1}}
trainer: {kernel: gatherd, precision: 16-mixed, devices: 0, strategi: auto}
evaluation: {benchmark: {limit: 0}, question_only: nobody}
"""

ALL_PROBLEMS = [
    "name: missing",
    "model.scratch.tokenizer_data: missing",
    "model.scratch.heads: must be a multiple of kv_heads",
    "model.scratch.hidden_size: must be a multiple",
    "model.patchifier.kind: 'conf' is none of conv, linear, two_conv, vit; did you mean 'conv'?",
    "model.patchifier.patch_sise: Key 'patch_sise' not in 'PatchifierSection'. Did you mean",
    "model.patchifier.width: Value 'wide'",
    "model.experts.ffn: 'first:3' does not fit: the backbone has 2 layers",
    "model.experts.attention: 'sometimes' is no placement",
    "model.experts.norms: layer 9 does not exist",
    "image.size: 15 is no multiple",
    "data.text.sources.docs.source: 'stdlib_doc'",
    "data.text.sequence_length: 0 must be above 0",
    "data.empty.sources: empty",
    "data.lost.sources.a.options.path: jsonl needs the path of its files",
    "data.lost.sources.b.options.path: jsonl needs the path of its files",
    "data.lost.sources.b: name a source or a path; one of the two",
    "stages.first.duration: '3 moons' is no duration",
    "stages.first.train: 'patchifer' is none of",
    "stages.first.data: 'txt' is none of text, empty, lost; did you mean 'text'?",
    "stages.first.optim.lrr: Key 'lrr'",
    "stages.second.train: empty",
    "stages.second.lr_scale: 'atention'",
    "stages.second.optim.betas: [0.9] must be two numbers",
    "trainer.kernel: 'gatherd' is none of auto, masked_dense, gathered, "
    "grouped, triton, triton_recompute; did you mean 'gathered'?",
    "trainer.precision: fp16 overflows",
    "trainer.devices: 0 must be above 0",
    "trainer.strategi: Key 'strategi' not in 'TrainerSection'. Did you mean: 'strategy'?",
    "evaluation.benchmark.source: missing",
    "evaluation.benchmark.limit: must be above 0",
    "evaluation.question_only: no recipe 'nobody'",
]


def test_all_problems_are_gathered_each_in_one_line(tmp_path: Path) -> None:
    path = write_tiny_recipe(tmp_path, EVERYTHING_WRONG)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    found = [line.removeprefix(f"{path}: ") for line in lines]
    for problem in ALL_PROBLEMS:
        assert sum(line.startswith(problem) for line in found) == 1, problem
    assert len(found) == len(ALL_PROBLEMS), "\n".join(found)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("model.patchifier=null", "first.train: the model has no 'patchifier'"),
        ("model.experts.ffn=none", "first.train: the model has no 'experts.ffn'"),
        ("model.backbone=smollm2-135m", "model: name a backbone, or a pretrained model"),
        ("model.scratch=null", "model: name a backbone, or a pretrained model"),
        ("model.experts.ffn=true", "experts.ffn: True is no placement"),
        ("model.chat=chatty", "model.chat: 'chatty'"),
        ("stages.first.optim.lr=0", "first.optim.lr: 0.0 must be above 0"),
        ("stages.first.optim.lr=.nan", "first.optim.lr: nan must be above 0"),
        ("stages.first.optim.lr=fast", "first.optim.lr: .*'fast'"),
        ("optim.schedule=cosin", "first.optim.schedule: .*did you mean 'cosine'"),
        ("optim.min_lr_ratio=2", "min_lr_ratio: 2.0 must be between"),
        ("stages.first.optim.decay_share=0", "first.optim.decay_share: 0.0 must be above 0"),
        ("optim.layer_decay=1.1", "first.optim.layer_decay: 1.1 must be above 0, and 1 at most"),
        ("stages.first.accumulate=0", "first.accumulate: 0 must be 1 or more"),
        ("stages.first.accumulate=4", "first.accumulate: .*batch_size a multiple of 4"),
        ("stages.first.optimizer_state=keap", "optimizer_state: 'keap'.*did you mean 'keep'"),
        ("trainer.ema=1", "trainer.ema: 1.0 must be from 0 to below 1"),
        ("trainer.attention_every=-1", "attention_every: -1 must be 0 or more"),
        ("optim.warmup_steps=-1", "warmup_steps: -1 must be 0 or more"),
        ("trainer.max_steps=0", "trainer.max_steps: must be above 0"),
        ("trainer.devices=3", "data.text.batch_size: must be a multiple of trainer.devices"),
        ("data.text.sources.docs.weight=0", "weight: 0.0 must be above 0"),
        ("evaluation.question_only=micro/language", "needs evaluation.benchmark"),
    ],
)
def test_single_problems(override: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        tiny_recipe(override)


def test_what_a_sound_recipe_needs_is_told_apart_from_what_is_wrong_with_it(
    tmp_path: Path,
) -> None:
    """It can be looked at and planned; a run refuses with the same lines."""
    (tmp_path / "made" / "checkpoints").mkdir(parents=True)
    recipe = tiny_recipe(
        f"data.text.sources.chunks.path={tmp_path}/chunks",
        f"data.text.sources.lines={{source: jsonl, options: {{path: {tmp_path}/lines}}}}",
        f"model.init_from={tmp_path}/made/first",
        f"out={tmp_path}/run",
    )
    expected = [
        f"model.init_from: {tmp_path}/made/first is not there; run that recipe up to this stage "
        "first",
        f"data.text.sources.chunks.path: {tmp_path}/chunks holds no prepared chunks (no "
        "index.json); prepare it with lightning-mono prepare",
        f"data.text.sources.lines.options.path: {tmp_path}/lines does not exist",
    ]
    assert list(validate.needs(recipe)) == expected
    with pytest.raises(RecipeError) as caught:
        fit(recipe)
    assert str(caught.value).splitlines() == expected
    assert not (tmp_path / "run").exists()
    for path in ("chunks", "lines"):
        (tmp_path / path).mkdir()
    (tmp_path / "chunks" / "index.json").touch()
    (tmp_path / "made" / "checkpoints" / "stage=first-step=00000003.ckpt").touch()
    assert list(validate.needs(recipe)) == []


def test_a_recipe_without_stages_is_refused(tmp_path: Path) -> None:
    text = TINY_RECIPE[: TINY_RECIPE.index("stages:")]
    with pytest.raises(RecipeError, match="at least one stage"):
        load_recipe(write_tiny_recipe(tmp_path, text))


@pytest.mark.parametrize("name", ["quickstart", "smollm2_135m/easy_vqa"])
def test_overrides_that_the_recipes_and_the_readme_suggest_are_valid(name: str) -> None:
    recipe = load_recipe(name, ["model.experts.attention=none", "out=runs/evip"])
    check_on_meta(recipe)
