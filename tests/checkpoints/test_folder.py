"""A model written and read is the same model; a broken folder says in one line what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_mono.backbones import RopeScaling
from lightning_mono.checkpoints.folder import read_config, save_model
from lightning_mono.errors import CheckpointError
from lightning_mono.model import ExpertsConfig, MonoConfig, MonoModel
from lightning_mono.testing import IMAGE, tiny_config, tiny_decoder, tiny_model

CONFIGS = {
    "full": tiny_config(),
    "some experts, biases, tied": tiny_config(
        ExpertsConfig(ffn=(1,), attention=(0,)), qkv_bias=True, out_bias=True, tied=True
    ),
    "text only, scaled": MonoConfig(
        tiny_decoder(rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 64))
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_round_trip_is_bit_exact(config: MonoConfig, dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_model(config, dtype=dtype)
    model.save_pretrained(tmp_path / "new" / "model")
    again = MonoModel.from_pretrained(tmp_path / "new" / "model").eval()
    assert again.config == config
    ours, theirs = model.state_dict(), again.state_dict()
    assert list(ours) == list(theirs)
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype == dtype
        assert torch.equal(ours[name], theirs[name])
    ids = torch.tensor([[5, IMAGE, IMAGE, IMAGE, IMAGE, 6]])
    inputs = (ids, torch.ones(1, 3, 16, 16)) if config.patchifier else (ids,)
    with torch.no_grad():
        assert torch.equal(model(*inputs).logits, again(*inputs).logits)
    files = sorted(path.name for path in (tmp_path / "new" / "model").iterdir())
    assert files == ["config.json", "model.safetensors"]


def test_a_loaded_model_trains(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    model = MonoModel.from_pretrained(tmp_path)
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())
    model(torch.tensor([[5, 6]])).logits.sum().backward()


def test_a_transposed_view_is_saved_as_what_it_shows(tmp_path: Path) -> None:
    model = tiny_model()
    up = model.layers[0].ffn.text.up
    up.weight = torch.nn.Parameter(up.weight.detach().t().contiguous().t())
    model.save_pretrained(tmp_path)
    assert torch.equal(MonoModel.from_pretrained(tmp_path).layers[0].ffn.text.up.weight, up.weight)


def test_further_entries_stand_beside_the_model(tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path, {"chat": "plain"})
    assert read_config(tmp_path)["chat"] == "plain"


def _edit(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def breaks(folder: Path) -> None:
        entries = json.loads((folder / "config.json").read_text())
        change(entries)
        (folder / "config.json").write_text(json.dumps(entries))

    return breaks


def _tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def breaks(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return breaks


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "no model folder"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
    "cut weights": (_truncate, r"model\.safetensors cannot be read"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "cannot be read"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), r"config\.json cannot be read"),
    "not text": (
        lambda f: (f / "config.json").write_bytes(b"\xff"),
        r"config\.json cannot be read",
    ),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "not of the format"),
    "another format": (_edit(lambda e: e.update(format="else")), "not of the format"),
    "no model": (_edit(lambda e: e.pop("model")), "does not describe a model.*model"),
    "no decoder": (_edit(lambda e: e["model"].pop("decoder")), "does not describe.*decoder"),
    "unknown key": (_edit(lambda e: e["model"]["decoder"].update(x=1)), "does not describe.*x"),
    "impossible": (_edit(lambda e: e["model"]["decoder"].update(kv_heads=3)), "kv_heads 3"),
    "other shape": (
        _edit(lambda e: e["model"]["decoder"].update(ffn_size=8)),
        r"ffn\.text\.gate\.weight has shape \(24, 16\), config.json says \(8, 16\)",
    ),
    "missing tensor": (_tensors(lambda t: t.pop("norm.weight")), r"1 tensors are missing.*norm\."),
    "unknown tensor": (
        _tensors(lambda t: t.update(extra=torch.zeros(1))),
        "1 tensors do not belong, first extra",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_folder_says_so_in_one_line(name: str, tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    breaks, message = BREAKS[name]
    breaks(tmp_path)
    with pytest.raises(CheckpointError, match=message) as caught:
        MonoModel.from_pretrained(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert str(tmp_path) in str(caught.value)


def test_a_folder_that_cannot_be_made_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        tiny_model().save_pretrained(tmp_path / "file")
