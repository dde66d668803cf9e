"""What the official code said about a folder, we say too; `tests/golden/README.md` has the details.

Two programs that add in another order differ by a few units in the last place. The tolerances are
some four times what the folders differ by, on processors with and without wide vector units.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lightning_mono import kernels
from lightning_mono.backbones.shards import INDEX
from lightning_mono.checkpoints.config import read_config
from lightning_mono.checkpoints.tensors import entries
from lightning_mono.model import MonoModel
from lightning_mono.model.mono import MonoOutput
from lightning_mono.model.sampling import Sampling
from lightning_mono.params import grouped
from lightning_mono.testing import kernels_here

GOLDEN = Path(__file__).parents[1] / "golden"
FOLDERS = sorted(path.parent.name for path in GOLDEN.glob("*/config.json"))
STATES, LOSS, WEIGHTS = 4e-5, 5e-6, 5e-6  # absolute
GRADIENTS = 2e-5  # of the tensor's largest entry
TRAINED = ("patchifier", "experts.ffn")


@dataclass(frozen=True, repr=False)
class Golden:
    """A folder with a model, what the official code was given, and what it gave."""

    folder: Path
    meta: dict[str, Any]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    grads: dict[str, Tensor]

    @classmethod
    def read(cls, name: str) -> Golden:
        folder = GOLDEN / name
        inputs, outputs, grads = (
            load_file(folder / f"{part}.safetensors") for part in ("inputs", "outputs", "grads")
        )
        inputs["pixel_values"] = inputs["pixel_values"].float()
        return cls(folder, json.loads((folder / "meta.json").read_text()), inputs, outputs, grads)

    def model(self) -> MonoModel:
        return MonoModel.from_pretrained(self.folder, dtype=torch.float32).eval()

    def run(self, model: MonoModel, **asked: bool) -> MonoOutput:
        names = ("input_ids", "pixel_values", "attention_mask", "labels", "tiles_per_sample")
        return model(*(self.inputs[name] for name in names), **asked)

    def sample(self, row: int) -> tuple[Tensor, Tensor | None]:
        """A sample's ids without padding, (1, tokens), and its tiles."""
        ids, real = self.inputs["input_ids"][row], self.inputs["attention_mask"][row].bool()
        counts = self.inputs["tiles_per_sample"].tolist()
        tiles = self.inputs["pixel_values"].split(counts)[row]
        return ids[real][None], tiles if counts[row] else None

    def generated(self, name: str) -> Tensor:
        """New ids only: the official code puts a placeholder in front of them."""
        return self.outputs[name][:, 1:]


@pytest.fixture(params=FOLDERS)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden.read(request.param)


def _error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize("kernel", kernels_here())
@torch.no_grad()
def test_forward(golden: Golden, kernel: str) -> None:
    model, theirs = golden.model(), golden.outputs
    real = golden.inputs["attention_mask"].bool()
    with kernels.active(model, kernel):
        fast = golden.run(model)
        ours = golden.run(model, output_hidden_states=True, output_attentions=True)
    assert len(ours.hidden_states) == sum(name.startswith("hidden_states.") for name in theirs)
    assert len(ours.attentions) == sum(name.startswith("attentions.") for name in theirs)
    assert _error(model.patchifier(golden.inputs["pixel_values"]), theirs["visual_embeds"]) < STATES
    for layer, state in enumerate(ours.hidden_states):
        assert _error(state[real], theirs[f"hidden_states.{layer}"][real]) < STATES, layer
    for layer, weights in enumerate(ours.attentions):
        by_query = weights.transpose(1, 2), theirs[f"attentions.{layer}"].transpose(1, 2)
        assert _error(*(side[real] for side in by_query)) < WEIGHTS, layer
    for output in (fast, ours):
        assert _error(output.logits[real], theirs["logits"][real]) < STATES
        assert _error(output.loss[None], theirs["loss"]) < LOSS


@pytest.mark.parametrize("kernel", kernels_here())
def test_gradients_of_delta_tuning(golden: Golden, kernel: str) -> None:
    model = golden.model().requires_grad_(False)
    groups = grouped(name for name, _ in model.named_parameters())
    trained = {name for group in TRAINED for name in groups.get(group, ())}  # dense: no experts
    for name in trained:
        model.get_parameter(name).requires_grad_()
    with kernels.active(model, kernel):
        golden.run(model).loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert set(found) == trained
    state = model.state_dict()
    ours = {name: found.get(name, torch.zeros_like(value)) for name, value in state.items()}
    stored = entries(model.config, {name: tuple(value.shape) for name, value in state.items()})
    gradients = {entry.name: entry.join(ours) for entry in stored}
    assert {name for name, value in gradients.items() if value.any()} == {
        name for name, value in golden.grads.items() if value.any()
    }
    for name, theirs in golden.grads.items():
        assert _error(gradients[name], theirs) <= GRADIENTS * float(theirs.abs().max()), name


@pytest.mark.parametrize("kernel", kernels_here())
def test_greedy_generation(golden: Golden, kernel: str) -> None:
    model = golden.model()
    names = ("input_ids_left", "pixel_values", "attention_mask_left", "tiles_per_sample")
    batch = [golden.inputs[name] for name in names]
    stops = (golden.meta["stop_id"],)
    with kernels.active(model, kernel):
        for row in range(len(golden.meta["tiles"])):
            new = model.generate(*golden.sample(row), max_new_tokens=16)
            assert torch.equal(new, golden.generated(f"generated.{row}")), row
        together = model.generate(*batch, max_new_tokens=16)
        stopped = model.generate(*batch, max_new_tokens=16, stop_ids=stops)
    assert torch.equal(together, golden.generated("generated_left"))
    assert torch.equal(stopped, golden.generated("generated_left_stopped"))


def test_repetition_penalty(golden: Golden) -> None:
    """The official code counts new ids and the placeholder in front; ours the prompt's text too.

    So the ids that count are said here, and the choice is compared.
    """
    official = golden.outputs["generated_penalized.0"][0].tolist()
    assert official != golden.outputs["generated.0"][0].tolist(), "else this compares nothing"
    model = golden.model()
    session, sampling = model.session(), Sampling(repetition_penalty=1.3)
    logits = session.read(*golden.sample(0))
    seen = torch.zeros_like(logits, dtype=torch.bool)
    said = official[:1]
    while len(said) < len(official):
        seen[0, said[-1]] = True
        said += sampling.pick(logits, seen, None).tolist()
        logits = session.read(torch.tensor([said[-1:]]))
    assert said == official


def _stored(folder: Path) -> dict[str, Tensor]:
    parts = [load_file(path) for path in sorted(folder.glob("model*.safetensors"))]
    return {name: value for part in parts for name, value in part.items()}


@pytest.mark.parametrize("shard_bytes", [10**9, 20_000])
def test_written_back_it_is_the_same_folder(
    golden: Golden, shard_bytes: int, tmp_path: Path
) -> None:
    MonoModel.from_pretrained(golden.folder).save_pretrained(tmp_path, shard_bytes=shard_bytes)
    assert (tmp_path / INDEX).exists() == (shard_bytes < 10**9)
    assert read_config(tmp_path)[0] == read_config(golden.folder)[0]
    ours, theirs = _stored(tmp_path), _stored(golden.folder)
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype
        assert torch.equal(ours[name], value), name
    again = MonoModel.from_pretrained(tmp_path).state_dict()
    for name, value in MonoModel.from_pretrained(golden.folder).state_dict().items():
        assert torch.equal(again[name], value), name


@pytest.mark.parametrize(
    ("name", "section", "setting", "value", "matters"),
    [
        ("linear-biases-v1-defaults", "llm_config", "rope_scaling", None, True),
        ("linear-biases-v1-defaults", "llm_config", "rms_norm_eps", 1e-3, True),
        ("linear-biases-v1-defaults", None, "ps_version", "v2", True),
        ("dynamic-acting-mqa-sharded", "llm_config", "rope_scaling", None, True),
        ("dynamic-acting-mqa-sharded", "llm_config", "max_position_embeddings", 14, True),
        ("dynamic-resting-resized-unmerged", "llm_config", "rope_scaling", None, False),
        ("tied-merge4-v1", None, "ps_version", "v2", True),
    ],
)
@torch.no_grad()
def test_another_setting_shows(
    name: str, section: str | None, setting: str, value: object, matters: bool, tmp_path: Path
) -> None:
    golden = Golden.read(name)
    shutil.copytree(golden.folder, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (config[section] if section else config)[setting] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    other = MonoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    real = golden.inputs["attention_mask"].bool()
    error = _error(golden.run(other).logits[real], golden.outputs["logits"][real])
    assert error > 1e-3 if matters else error < STATES
