"""Frozen text in 4 or 8 bits, and moments in 8: what is rounded, what is not, and what is kept."""

from __future__ import annotations

import copy
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_mono.kernels import use
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_mono.backbones.shards import Weights
from lightning_mono.checkpoints.folder import load_model, save_model
from lightning_mono.checkpoints.run import latest, read
from lightning_mono.errors import CheckpointError, RecipeError
from lightning_mono.inference import Assistant, make_renderer
from lightning_mono.model import ExpertsConfig, MonoModel, PatchifierConfig
from lightning_mono.model.quantised import (
    QuantisedLinear,
    bytes_by_group,
    parameter_count,
    quantise,
    quantised_linears,
    restore,
)
from lightning_mono.module import MonoModule
from lightning_mono.objectives import next_token_loss
from lightning_mono.params import TEXT_PATH, grouped
from lightning_mono.recipe import Recipe, load_recipe
from lightning_mono.stages import Optim
from lightning_mono.testing import (
    IMAGE,
    randomize,
    tiny_backbone,
    tiny_batch,
    tiny_config,
    tiny_model,
    tiny_recipe,
)
from lightning_mono.training import fit

SCHEMES = ("nf4", "int8")
WIDE = {"hidden_size": 64, "head_dim": 16, "ffn_size": 96}
"""Matrices of 4,096 numbers and more, which AdamW's moments in 8 bits begin at."""

# The 16 levels of NF4 (QLoRA, appendix E).
NF4 = torch.tensor(
    [
        *(-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0),
        *(0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0),
    ]
)


def rounded(weight: Tensor, scheme: str) -> Tensor:
    """The oracle: every weight at the nearest level of its block or row."""
    if scheme == "int8":
        step = weight.abs().amax(1, keepdim=True) / 127
        return (weight / step).round() * step
    blocks = F.pad(weight.flatten(), (0, -weight.numel() % 64)).view(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True)
    nearest = (blocks[..., None] / scale[..., None] - NF4).abs().argmin(-1)
    return (NF4[nearest] * scale).flatten()[: weight.numel()].view_as(weight)


def linear(rows: int, columns: int, *, bias: bool = False, seed: int = 0) -> nn.Linear:
    made = nn.Linear(columns, rows, bias=bias)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return made


def documents() -> list[list[list[list[int]]]]:
    """Two rows: text around two tiles, and text alone."""
    return [[[[5, *[IMAGE] * 4, 6, 7], [8, 9]], [[*[IMAGE] * 4, 10, 11]]], [[[12, 13, 14, 15]]]]


# -- one layer --------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(2, 50).map(lambda half: 2 * half),
    seed=st.integers(0, 2**16),
    tokens=st.integers(0, 5),
    bias=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_a_layer_is_the_product_with_the_rounded_matrix(
    scheme: str, rows: int, columns: int, seed: int, tokens: int, bias: bool
) -> None:
    whole = linear(rows, columns, bias=bias, seed=seed)
    layer = QuantisedLinear(whole, scheme)
    matrix = rounded(whole.weight.detach(), scheme)
    torch.testing.assert_close(layer.expanded(torch.float32), matrix, atol=1e-6, rtol=1e-5)

    x = torch.randn(tokens, columns, dtype=torch.float64, requires_grad=True)
    exact = layer.expanded(torch.float64)
    expected = F.linear(x, exact, None if whole.bias is None else whole.bias.double())
    torch.testing.assert_close(layer(x), expected)
    weights = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad((y * weights).sum(), x) for y in (layer(x), expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_autocast_and_bfloat16_compute_as_a_plain_layer_does(scheme: str) -> None:
    layer = QuantisedLinear(linear(48, 64), scheme)
    plain = linear(48, 64)
    plain.weight = nn.Parameter(layer.expanded(torch.float32))
    x = torch.randn(7, 64)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = layer(x), plain(x)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    assert torch.equal(ours, theirs)
    # The cast leaves codes and scales alone: the matrix is rounded to bfloat16 once, not twice.
    cast = copy.deepcopy(layer).to(torch.bfloat16)
    assert torch.equal(cast.expanded(torch.float32), layer.expanded(torch.float32))
    assert cast(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_row_depends_on_nothing_but_itself(scheme: str) -> None:
    """Neither on its neighbours, large as they may be, nor on whether the layer trains."""
    layer = QuantisedLinear(linear(64, 64), scheme).double()
    x = torch.randn(5, 64, dtype=torch.float64)
    x[2, 3], x[4, 60] = 500.0, -90.0
    alone = torch.cat([layer(row[None]) for row in x])
    torch.testing.assert_close(layer(x), alone, atol=1e-10, rtol=0)
    assert torch.equal(layer.eval()(x), layer.train()(x))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_nothing_as_large_as_the_matrix_waits_for_the_way_back(scheme: str) -> None:
    layer = QuantisedLinear(linear(64, 96), scheme)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = layer(torch.randn(2, 96, requires_grad=True) * 2)
    assert y.requires_grad
    assert [t.shape for t in kept if t.is_floating_point() and t.numel() >= 64 * 96] == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_layer_compiles_whole_and_can_be_recomputed(scheme: str) -> None:
    layer = QuantisedLinear(linear(32, 64), scheme)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(3, 64, requires_grad=True)

    def recomputed(x: Tensor) -> Tensor:
        return checkpoint(layer, x, use_reentrant=False)

    grads = [torch.autograd.grad(f(x).square().sum(), x)[0] for f in (layer, compiled, recomputed)]
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(grads[0], grads[2])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_matrix_with_empty_rows_survives(scheme: str) -> None:
    whole = linear(8, 64)
    whole.weight.data[3:5] = 0
    layer = QuantisedLinear(whole, scheme)
    assert torch.equal(layer.expanded(torch.float32)[3:5], torch.zeros(2, 64))
    assert layer.expanded(torch.float32).isfinite().all()


# -- a model ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_matrices_are_rounded_and_nothing_else(scheme: str) -> None:
    model = tiny_model(tiny_config(**WIDE))
    model.copy_experts_from_text()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    bytes_before = bytes_by_group(model)
    quantise(model, scheme)
    names = {name for name, _ in quantised_linears(model)}
    parts = ("attention.qkv.text.q", "attention.qkv.text.k", "attention.qkv.text.v")
    parts += ("attention.out.text", "ffn.text.gate", "ffn.text.up", "ffn.text.down")
    assert names == {f"layers.{layer}.{part}" for layer in range(2) for part in parts}
    after = model.state_dict()
    plain = {name: value for name, value in before.items() if name[: -len(".weight")] not in names}
    assert after.keys() - plain.keys() == {
        f"{name}.{leaf}" for name in names for leaf in ("weight", "scales")
    }
    assert all(torch.equal(after[name], value) for name, value in plain.items())
    for name in names:  # an expert begins as the full weight, not as the rounded one
        expert = after.get(f"{name.replace('.text', '.visual')}.weight")
        assert torch.equal(expert, before[f"{name}.weight"])  # type: ignore[arg-type]

    bytes_after = bytes_by_group(model)
    changed = {group for group in bytes_before if bytes_before[group] != bytes_after[group]}
    assert changed == {"ffn", "attention"}
    # 4 bits and a 64th of 32; 8 bits and 32 a row of 64 or 96.
    most = 4.5 / 32 if scheme == "nf4" else 8.5 / 32
    assert all(bytes_after[group] <= most * bytes_before[group] for group in changed)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_gradients_reach_experts_and_patchifier_and_no_text_matrix(scheme: str) -> None:
    config = tiny_config(ExpertsConfig(ffn=(0,)), **WIDE)  # text matrices lie on every path
    model = tiny_model(config)
    quantise(model, scheme)
    batch = tiny_batch(documents(), config)
    next_token_loss(model, batch, model.hidden(batch), batch.weights.sum()).backward()
    groups = grouped(name for name, _ in model.named_parameters())
    for group in ("experts.ffn", "patchifier"):
        grads = [model.get_parameter(name).grad for name in groups[group]]
        reached = [grad for grad in grads if grad is not None and grad.abs().sum() > 0]
        assert len(reached) >= len(grads) - 2, group  # the class token has no place in the input
    assert all(model.get_parameter(name).grad is None for name in groups["ffn"])
    assert all(model.get_parameter(name).grad is None for name in groups["attention"])


def test_kernels_agree_on_rounded_text() -> None:
    config = tiny_config(**WIDE)
    model = tiny_model(config, dtype=torch.float64)
    quantise(model, "nf4")
    batch = tiny_batch(documents(), config)
    batch.pixel_values = batch.pixel_values.double()
    results = []
    for kernel in ("masked_dense", "gathered"):
        use(model, kernel)
        model.zero_grad()
        hidden = model.hidden(batch)
        hidden.square().sum().backward()
        experts = {n: p.grad for n, p in model.named_parameters() if ".visual." in n}
        results.append((hidden, experts))
    torch.testing.assert_close(results[0], results[1], atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_full_weights_come_back_bit_for_bit(scheme: str) -> None:
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quantise(model, scheme)
    restore(model, before)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not list(quantised_linears(model))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_other_weights_are_refused(scheme: str) -> None:
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quantise(model, scheme)
    name = "layers.1.ffn.text.up.weight"
    others = ({**before, name: before[name] * 1.01}, {k: v for k, v in before.items() if k != name})
    for other in others:
        with pytest.raises(CheckpointError, match=r"layers\.1\.ffn\.text\.up\.weight") as caught:
            restore(model, other)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_training_checkpoint_holds_the_rounded_weights(scheme: str) -> None:
    model, other = tiny_model(), tiny_model(seed=1)
    for each in (model, other):
        quantise(each, scheme)
    other.to(torch.bfloat16)
    other.load_state_dict(model.to(torch.bfloat16).state_dict())
    pairs = zip(quantised_linears(model), quantised_linears(other), strict=True)
    for (_, ours), (_, theirs) in pairs:
        assert torch.equal(ours.expanded(torch.float32), theirs.expanded(torch.float32))


def test_a_model_with_rounded_weights_is_not_exported(tmp_path: Path) -> None:
    model = tiny_model()
    quantise(model, "nf4")
    with pytest.raises(CheckpointError, match="restore the model's rounded weights"):
        save_model(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


# -- AdamW with moments in 8 bits -------------------------------------------------------------


def module(name: str = "adamw8bit") -> MonoModule:
    config = tiny_config(ExpertsConfig(ffn=(0, 1)), **WIDE)
    model = tiny_model(config)
    quantise(model, "nf4")
    return MonoModule(model, Optim(name=name, lr=3e-3, weight_decay=0.0))


def learn(made: MonoModule, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    batch = tiny_batch(documents(), made.model.config)
    losses = []
    for _ in range(steps):
        loss = next_token_loss(made.model, batch, made.model.hidden(batch), batch.weights.sum())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def freeze_all_but(made: MonoModule, groups: Sequence[str]) -> None:
    names = {name for group in groups for name in made.group_names()[group]}
    for name, parameter in made.model.named_parameters():
        parameter.requires_grad_(name in names)


def test_adamw8bit_learns_as_adamw_does_and_keeps_moments_in_8_bits() -> None:
    losses = {}
    for name in ("adamw", "adamw8bit"):
        made = module(name)
        freeze_all_but(made, ["experts.ffn", "patchifier"])
        optimizer = made.configure_optimizers()
        losses[name] = learn(made, optimizer, 12)
    assert losses["adamw8bit"][-1] < 0.8 * losses["adamw8bit"][0]
    assert losses["adamw8bit"][-1] == pytest.approx(losses["adamw"][-1], rel=0.1)
    state = {
        n: optimizer.state[p] for n, p in made.model.named_parameters() if p in optimizer.state
    }
    assert all(".visual." in name or name.startswith("patchifier") for name in state)
    kinds = {
        (made.model.get_parameter(name).numel() >= 4096, moments["state1"].dtype)
        for name, moments in state.items()
    }
    assert kinds == {(True, torch.uint8), (False, torch.float32)}


def test_adamw8bit_follows_the_rate_of_every_group() -> None:
    made = module()
    freeze_all_but(made, ["experts.ffn", "patchifier"])
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    optimizer = made.configure_optimizers()
    for group in optimizer.param_groups:
        group["lr"] = 1e-2 if group["name"] == "experts.ffn" else 0.0
    learn(made, optimizer, 2)
    after = made.model.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert moved == {name for name in after if ".ffn.visual." in name}


def test_adamw8bit_goes_on_exactly_where_it_was() -> None:
    whole = module()
    freeze_all_but(whole, ["experts.ffn", "patchifier"])
    optimizer = whole.configure_optimizers()
    learn(whole, optimizer, 3)
    file = io.BytesIO()
    torch.save({"model": whole.state_dict(), "optimizer": optimizer.state_dict()}, file)
    learn(whole, optimizer, 3)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = module()
    freeze_all_but(resumed, ["experts.ffn", "patchifier"])
    resumed.load_state_dict(saved["model"])
    optimizer = resumed.configure_optimizers()
    optimizer.load_state_dict(saved["optimizer"])
    learn(resumed, optimizer, 3)
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


# -- recipes ----------------------------------------------------------------------------------

RECIPE = """
name: rounded
out: {folder}/run
model: {{{start}, quantize: nf4}}
image: {{size: 16}}
optim: {{name: adamw8bit, lr: 1.0e-2}}
data:
  pictures:
    sources: {{own: {{source: jsonl, options: {{path: {folder}/pictures.jsonl}}}}}}
    sequence_length: 64
    batch_size: 2
stages:
  concept: {{duration: 3 steps, train: [patchifier, experts.ffn], data: pictures}}
  alignment: {{duration: 3 steps, train: [experts, norms], data: pictures, lr_scale: {{norms: 0}}}}
trainer: {{accelerator: cpu, checkpoint_every: 2}}
evaluation:
  retention_source: {{source: text_files, options: {{path: {folder}/text}}}}
  retention_tokens: 256
"""
BACKBONE = (
    "backbone: {folder}/language, patchifier: {{patch_size: 4, width: 6, merge: 2}}, "
    "experts: {{ffn: all, attention: all}}"
)
PRETRAINED = "pretrained: {folder}/model, experts: {{attention: last:1}}"


@pytest.fixture
def folder(recipe_file: Path) -> Path:
    """A text LLM and a monolithic model, each in a folder, beside text and pictures."""
    folder = recipe_file.parent
    backbone = tiny_backbone(family="internlm2", **WIDE)
    language = MonoModel.graft(backbone)
    made = MonoModel.graft(
        backbone, patchifier=PatchifierConfig(16, 4, 6), experts=ExpertsConfig(ffn=(0, 1))
    )
    randomize(made, seed=1)
    for model, name in ((language, "language"), (made, "model")):
        renderer = make_renderer(model, backbone.tokenizer, "chatml", None)
        Assistant(model, renderer, "chatml").save(folder / name)
    return folder


def recipe(folder: Path, start: str, *overrides: str) -> Recipe:
    path = folder / "rounded.yaml"
    path.write_text(RECIPE.format(folder=folder, start=start.format(folder=folder)))
    return load_recipe(path, list(overrides))


def events(run: Path, kind: str) -> list[dict[str, object]]:
    lines = map(json.loads, (run / "journal.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == kind]


def text_of(path: Path) -> dict[str, Tensor]:
    """The stored text weights of a monolithic model."""
    state = load_model(path, dtype=torch.float32).state_dict()
    return {name: state[name] for group, names in grouped(state).items()
            if group in TEXT_PATH for name in names}  # fmt: skip


@pytest.mark.parametrize(("start", "source"), [(BACKBONE, "language"), (PRETRAINED, "model")])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_run_trains_beside_rounded_text_and_exports_the_full_one(
    folder: Path, start: str, source: str, scheme: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = fit(recipe(folder, start, f"model.quantize={scheme}"))
    assert all(event["logits_identical"] for event in events(result.run.path, "retention"))
    assert len(events(result.run.path, "retention")) == 3

    (noted,) = events(result.run.path, "quantised")
    before, after = noted["bytes_before"], noted["bytes_after"]
    assert noted["scheme"] == scheme
    assert before["ffn"] > 3 * after["ffn"]  # type: ignore[index]
    assert before["experts.ffn"] == after["experts.ffn"]  # type: ignore[index]
    assert f"{scheme}: text 0." in capsys.readouterr().out

    original, exported = text_of(folder / source), text_of(result.run.model)
    vocabulary = len(original["embed.weight"])  # image tokens have rows of their own behind these
    for name, value in original.items():
        assert torch.equal(exported[name][: len(value)] if len(value) == vocabulary
                           else exported[name], value), name  # fmt: skip
    # What was measured is what was exported: no rounded weight is left in the assistant.
    held = result.assistant.model.state_dict()
    stored = load_model(result.run.model).state_dict()
    assert held.keys() == stored.keys()
    assert all(torch.equal(held[name], value) for name, value in stored.items())


def test_the_export_is_laid_out_as_that_of_a_run_without(folder: Path) -> None:
    shapes = []
    for scheme in ("none", "nf4"):
        run = fit(recipe(folder, BACKBONE, f"model.quantize={scheme}", f"out={folder}/{scheme}",
                         "trainer.precision=bf16-true")).run  # fmt: skip
        weights = Weights(run.model)
        shapes.append({name: weights.read(name) for name in weights.files})
    plain, rounded_run = shapes
    assert {n: (v.shape, v.dtype) for n, v in plain.items()} == {
        n: (v.shape, v.dtype) for n, v in rounded_run.items()
    }
    trained = ("_ve.", "vision_model", "mlp1", "visual")
    for name, value in plain.items():
        if not any(piece in name for piece in trained):
            assert torch.equal(rounded_run[name], value), name


KILLED = """
import os, signal, sys
from lightning_mono.callbacks.progress import StageProgress
from lightning_mono.recipe import load_recipe
from lightning_mono.training import fit

def hook(self, trainer, *args, step=StageProgress.on_train_batch_end):
    step(self, trainer, *args)
    if trainer.global_step == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

StageProgress.on_train_batch_end = hook
fit(load_recipe(sys.argv[1], [f"out={sys.argv[2]}"]))
"""


def test_a_killed_run_ends_with_the_same_weights(folder: Path) -> None:
    whole = fit(recipe(folder, BACKBONE)).run
    out = folder / "killed"
    command = [sys.executable, "-c", KILLED, str(folder / "rounded.yaml"), str(out), "5"]
    environment = dict(os.environ, PYTHONWARNINGS="ignore")
    done = subprocess.run(command, env=environment, capture_output=True, timeout=300, cwd=folder)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    newest = latest(out / "checkpoints")
    assert newest is not None
    assert not (out / "model").exists()
    saved = read(newest)
    assert saved["state_dict"]["model.layers.0.ffn.text.up.weight"].dtype == torch.uint8
    killed = recipe(folder, BACKBONE, f"out={out}")
    resumed = fit(killed, resume=True).run
    ours, theirs = (load_model(run.model).state_dict() for run in (resumed, whole))
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def test_a_run_goes_on_with_the_bits_it_began_with(folder: Path) -> None:
    fit(recipe(folder, BACKBONE, "trainer.max_steps=3"))
    for scheme in ("int8", "none"):
        with pytest.raises(CheckpointError, match="not as the recipe has it") as caught:
            fit(recipe(folder, BACKBONE, f"model.quantize={scheme}"), resume=True)
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="stages before step 3 are not those"):
        fit(recipe(folder, BACKBONE, "optim.name=adamw"), resume=True)


def test_a_backbone_that_was_replaced_is_not_exported(folder: Path) -> None:
    fit(recipe(folder, BACKBONE))
    model = load_model(folder / "language")
    model.layers[0].ffn.text.up.weight.data *= 2  # type: ignore[union-attr, operator]
    save_model(model, folder / "language")
    with pytest.raises(CheckpointError, match="put the backbone back"):
        fit(recipe(folder, BACKBONE), resume=True)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["model.quantize=nf5"], "model.quantize: 'nf5' is none of none, nf4, int8"),
        (["stages.concept.train=[patchifier, ffn]"], "stages.concept.train: 'ffn' holds text"),
        (["stages.alignment.train=[everything]"], "stages.alignment.train: 'everything' holds"),
        (["trainer.kernel=triton"], "trainer.kernel: triton does not read nf4; use gathered"),
        (["trainer.strategy=mono_fsdp2"], "trainer.strategy: mono_fsdp2 does not shard nf4"),
        (["trainer.strategy=mono_fsdp2"], "optim.name: adamw8bit needs whole tensors"),
        (["optim.name=adam8"], "optim.name: 'adam8' is none of adamw, adamw8bit"),
        (["stages.concept.optim={name: adamw}"], "concept.optim.name: one optimizer serves all"),
        (["trainer.precision=64-true"], "adamw8bit computes in fp32"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(
    folder: Path, overrides: Sequence[str], says: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(folder, BACKBONE, *overrides)
    assert says in str(caught.value)
    assert all(line.startswith(str(folder)) for line in str(caught.value).splitlines())


def test_a_model_from_scratch_is_not_rounded() -> None:
    with pytest.raises(RecipeError, match="train a new model in a recipe of its own"):
        tiny_recipe(
            "model.quantize=nf4", "stages.second.train=[experts]", "stages.second.lr_scale={}"
        )


def test_a_rounded_matrix_counts_as_what_it_stands_for() -> None:
    model = tiny_model(tiny_config(tied=True))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert parameter_count(model) == count
    quantise(model, "nf4")
    assert parameter_count(model) == count
