"""Folders in Hugging Face layout: parity with transformers both ways, and every fault named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

from lightning_mono.backbones import Backbone, RopeScaling, load_backbone, save_backbone
from lightning_mono.errors import CheckpointError
from lightning_mono.model import MonoModel

MakeBackbone = Callable[..., Backbone]
LLAMA3 = RopeScaling(
    "llama3", 4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_positions=16
)
SHAPES: dict[str, dict[str, Any]] = {
    "grouped": {},
    "tied": {"tied": True},
    "biased": {"qkv_bias": True, "out_bias": True},
    "wide heads": {"head_dim": 12, "kv_heads": 4},
    "linear": {"rope_scaling": RopeScaling("linear", 2.0)},
    "dynamic": {"rope_scaling": RopeScaling("dynamic", 2.0), "max_positions": 8},
    "llama3": {"rope_scaling": LLAMA3},
}
IDS = torch.arange(24)[None] * 7 % 300


@pytest.fixture
def saved(tmp_path: Path, make_backbone: MakeBackbone) -> Path:
    """A good folder, for spoiling."""
    save_backbone(tmp_path / "good", make_backbone())
    return tmp_path / "good"


def spoil(folder: Path, **changes: Any) -> None:
    """Changes keys of config.json; None removes one."""
    config = json.loads((folder / "config.json").read_text()) | changes
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


def in_two_shards(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in names if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load_backbone(str(folder))
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("shape", SHAPES)
def test_transformers_reads_what_is_saved_and_computes_the_same(
    shape: str, tmp_path: Path, make_backbone: MakeBackbone
) -> None:
    transformers = pytest.importorskip("transformers")
    backbone = make_backbone(**SHAPES[shape])
    save_backbone(tmp_path, backbone)
    oracle = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    model = MonoModel.graft(load_backbone(str(tmp_path)))
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, oracle(IDS).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_transformers_saves_is_read_back(
    shape: str, tmp_path: Path, make_backbone: MakeBackbone
) -> None:
    transformers = pytest.importorskip("transformers")
    backbone = make_backbone(**SHAPES[shape])
    save_backbone(tmp_path / "ours", backbone)
    oracle = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    oracle.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    backbone.tokenizer.save(str(tmp_path / "theirs/tokenizer.json"))
    loaded = load_backbone(str(tmp_path / "theirs"))
    assert loaded.config == backbone.config
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    for name, tensor in backbone.tensors.items():
        assert torch.equal(loaded.tensors[name], tensor), name


def test_transformers_tokenizes_and_chats_the_same(
    tmp_path: Path, make_backbone: MakeBackbone
) -> None:
    transformers = pytest.importorskip("transformers")
    backbone = make_backbone()
    save_backbone(tmp_path, backbone)
    oracle = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ("A circle, é, 日本語, 🙂, 1234", "<|im_start|>user\nhi<|im_end|>\n"):
        assert oracle(text)["input_ids"] == backbone.tokenizer.encode(text).ids
    assert (oracle.bos_token_id, oracle.eos_token_id, oracle.pad_token_id) == (1, 2, 2)
    turns = [{"role": "user", "content": "hi"}]
    text = oracle.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("chat", ["chatml", "plain"])
def test_saving_and_loading_keeps_everything(
    chat: str, tmp_path: Path, make_backbone: MakeBackbone
) -> None:
    backbone = make_backbone()
    backbone.chat, backbone.name = chat, tmp_path.name
    save_backbone(tmp_path, backbone)
    loaded = load_backbone(str(tmp_path))
    for name, tensor in backbone.tensors.items():
        assert torch.equal(loaded.tensors[name], tensor), name
    assert loaded.tokenizer.to_str() == backbone.tokenizer.to_str()
    for field in ("name", "config", "chat", "bos_id", "eos_id", "pad_id", "stop_ids"):
        assert getattr(loaded, field) == getattr(backbone, field), field


def test_a_folder_may_be_saved_over_itself(saved: Path) -> None:
    before = load_file(saved / "model.safetensors")
    save_backbone(saved, load_backbone(str(saved)))
    after = load_file(saved / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not [path for path in saved.iterdir() if path.name.startswith(".")]


def test_a_saved_backbone_takes_the_place_of_a_sharded_one(
    saved: Path, make_backbone: MakeBackbone
) -> None:
    in_two_shards(saved)
    save_backbone(saved, make_backbone(layers=1))
    assert load_backbone(str(saved)).config.layers == 1


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, make_backbone: MakeBackbone
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="file/model cannot be written"):
        save_backbone(tmp_path / "file/model", make_backbone())


def test_tensors_come_in_the_type_that_is_asked_for(saved: Path) -> None:
    half = load_backbone(str(saved), dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in half.tensors.values()} == {torch.bfloat16}


def test_shards_hold_the_same_model(saved: Path) -> None:
    whole = load_backbone(str(saved)).tensors
    in_two_shards(saved)
    parts = load_backbone(str(saved)).tensors
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_missing_shard_is_named(saved: Path) -> None:
    in_two_shards(saved)
    (saved / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors is missing" in refusal(saved)


def test_a_shard_without_the_tensor_that_the_index_promises_is_named(saved: Path) -> None:
    in_two_shards(saved)
    shard = saved / "model-00002-of-00002.safetensors"
    save_file({"other": torch.zeros(1)}, shard)
    assert f"{shard}: no tensor" in refusal(saved)


@pytest.mark.parametrize("size", [0, 4, 500, -4])
def test_weights_cut_short_are_refused(saved: Path, size: int) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert "model.safetensors is damaged or cut short" in refusal(saved)


def test_a_wrong_shape_is_refused(saved: Path) -> None:
    spoil(saved, intermediate_size=65)
    assert "mlp.gate_proj.weight has shape (64, 32), config.json says (65, 32)" in refusal(saved)


def test_a_missing_tensor_is_named(saved: Path) -> None:
    spoil(saved, num_hidden_layers=3)
    assert "no tensor model.layers.2." in refusal(saved)


def test_a_tensor_without_a_place_is_refused(saved: Path) -> None:
    spoil(saved, num_hidden_layers=1)
    assert "tensor model.layers.1.input_layernorm.weight has no place" in refusal(saved)


def test_harmless_leftovers_are_ignored(saved: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)
    save_file(tensors, saved / "model.safetensors")
    spoil(saved, tie_word_embeddings=True)
    assert "head.weight" not in load_backbone(str(saved)).tensors


def test_pickles_are_refused(saved: Path) -> None:
    (saved / "model.safetensors").rename(saved / "pytorch_model.bin")
    assert "pytorch_model.bin is a pickle" in refusal(saved)


def test_a_folder_without_weights_is_refused(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    assert "model.safetensors is missing" in refusal(saved)


def test_a_folder_that_was_not_finished_is_refused(saved: Path) -> None:
    (saved / "config.json").unlink()
    assert "config.json is missing" in refusal(saved)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"model_type": "gpt_neox"}, "family 'gpt_neox' is not supported"),
        ({"model_type": None}, "no key model_type"),
        ({"hidden_size": None}, "no key hidden_size"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
        ({"mlp_bias": True}, "mlp_bias True is not supported"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope scaling 'yarn'"),
        ({"rope_scaling": {"rope_type": "linear"}}, "no key factor"),
        ({"num_key_value_heads": 3}, "kv_heads 3 is no divisor of heads 4"),
        ({"quantization_config": {}}, "weights are quantised"),
    ],
)
def test_settings_that_are_not_supported_are_refused(
    saved: Path, changes: dict[str, Any], part: str
) -> None:
    spoil(saved, **changes)
    assert part in refusal(saved)


def test_a_model_that_never_ends_is_refused(saved: Path) -> None:
    Tokenizer(models.BPE({"a": 0}, [])).save(str(saved / "tokenizer.json"))
    (saved / "tokenizer_config.json").unlink()
    (saved / "generation_config.json").unlink()
    spoil(saved, eos_token_id=None)
    assert "no key eos_token_id" in refusal(saved)


def test_biases_that_llama_cannot_express_are_refused(
    tmp_path: Path, make_backbone: MakeBackbone
) -> None:
    with pytest.raises(CheckpointError, match="biases on all of q, k, v, o"):
        save_backbone(tmp_path, make_backbone(qkv_bias=True))
