"""A model written and read is the same model; a broken folder says in one line what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_mono.backbones import RopeScaling
from lightning_mono.checkpoints.folder import save_model
from lightning_mono.errors import AssetError, CheckpointError
from lightning_mono.model import ExpertsConfig, MonoConfig, MonoModel, PatchifierConfig
from lightning_mono.testing import IMAGE, tiny_config, tiny_decoder, tiny_model

EVERY = (0, 1)
CONFIGS = {
    "full": tiny_config(),
    "published": tiny_config(ExpertsConfig(ffn=EVERY), family="internlm2"),
    "attention experts": tiny_config(
        ExpertsConfig(ffn=EVERY, attention=EVERY), family="internlm2", qkv_bias=True, out_bias=True
    ),
    "no experts": tiny_config(ExpertsConfig(), family="qwen2", qkv_bias=True),
    "some experts, biases, tied": tiny_config(
        ExpertsConfig(ffn=(1,), attention=(0,)), qkv_bias=True, out_bias=True, tied=True
    ),
    "head norms": tiny_config(ExpertsConfig(attention=(1,)), family="qwen3", qk_norm=True),
    "another tile size, v1": replace(
        tiny_config(ExpertsConfig(ffn=EVERY), family="internlm2"),
        patchifier=PatchifierConfig(24, 4, 6, merge=2, order="v1", table_size=16),
    ),
    "text only, scaled": MonoConfig(
        tiny_decoder(rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 64))
    ),
}


def _state(model: MonoModel) -> dict[str, torch.Tensor]:
    for buffer in ("class_embedding", "class_position"):
        if model.patchifier is not None:
            getattr(model.patchifier, buffer).normal_()
    return model.state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_round_trip_is_bit_exact(config: MonoConfig, dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_model(config, dtype=dtype)
    ours = _state(model)
    model.save_pretrained(tmp_path / "new" / "model")
    again = MonoModel.from_pretrained(tmp_path / "new" / "model").eval()
    assert again.config == config
    theirs = again.state_dict()
    assert list(ours) == list(theirs)
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype == dtype
        assert torch.equal(ours[name], theirs[name])
    patchifier = config.patchifier
    ids = [5, *[IMAGE] * (patchifier.tokens_per_tile if patchifier else 4), 6]
    pixels = torch.ones(1, 3, patchifier.image_size, patchifier.image_size) if patchifier else None
    with torch.no_grad():
        first = model(torch.tensor([ids]), pixels).logits
        assert torch.equal(first, again(torch.tensor([ids]), pixels).logits)
    files = sorted((tmp_path / "new" / "model").iterdir())
    assert [path.name for path in files] == ["config.json", "model.safetensors"]
    assert files[0].stat().st_mode == files[1].stat().st_mode


LAYER = [
    "attention.wo.weight",
    "attention.wqkv.weight",
    "attention_norm.weight",
    "feed_forward.w1.weight",
    "feed_forward.w2.weight",
    "feed_forward.w3.weight",
    "feed_forward_ve.w1.weight",
    "feed_forward_ve.w2.weight",
    "feed_forward_ve.w3.weight",
    "ffn_norm.weight",
]
PUBLISHED = sorted(
    [
        "language_model.model.norm.weight",
        "language_model.model.tok_embeddings.weight",
        "language_model.output.weight",
        "mlp1.0.bias",
        "mlp1.0.weight",
        "mlp1.1.bias",
        "mlp1.1.weight",
        "mlp1.3.bias",
        "mlp1.3.weight",
        "vision_model.embeddings.class_embedding",
        "vision_model.embeddings.patch_embedding.bias",
        "vision_model.embeddings.patch_embedding.weight",
        "vision_model.embeddings.position_embedding",
        *[f"language_model.model.layers.{layer}.{name}" for layer in EVERY for name in LAYER],
    ]
)


def test_the_published_names_are_written(tmp_path: Path) -> None:
    tiny_model(CONFIGS["published"]).save_pretrained(tmp_path)
    assert sorted(load_file(tmp_path / "model.safetensors")) == PUBLISHED
    entries = json.loads((tmp_path / "config.json").read_text())
    assert entries["llm_config"]["architectures"] == ["InternLM2VEForCausalLM"]


def test_what_the_published_layout_lacks_is_named_in_its_style(tmp_path: Path) -> None:
    experts = ExpertsConfig(ffn=(0,), attention=(1,), norms=(1,))
    tiny_model(tiny_config(experts, family="internlm2")).save_pretrained(tmp_path)
    names = {name for name in load_file(tmp_path / "model.safetensors") if "_ve" in name}
    prefix = "language_model.model.layers"
    assert names == {
        *(f"{prefix}.0.feed_forward_ve.w{i}.weight" for i in (1, 2, 3)),
        f"{prefix}.1.attention.wqkv_ve.weight",
        f"{prefix}.1.attention.wo_ve.weight",
        f"{prefix}.1.attention_norm_ve.weight",
        f"{prefix}.1.ffn_norm_ve.weight",
    }
    entries = json.loads((tmp_path / "config.json").read_text())
    assert entries["llm_config"]["architectures"] == ["InternLM2MonoForCausalLM"]
    assert entries["llm_config"]["visual_experts"]["attention"] == [1]


def test_shards_hold_the_same_model_and_replace_what_was_there(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path, shard_bytes=4_000)
    assert not (tmp_path / "model.safetensors").exists()
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 3
    assert all(path.stat().st_size < 6_000 for path in shards)
    assert not list(tmp_path.glob(".*"))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    held = {name: path.name for path in shards for name in load_file(path)}
    assert index["weight_map"] == dict(sorted(held.items()))
    total = sum(value.nbytes for path in shards for value in load_file(path).values())
    assert index["metadata"]["total_size"] == total
    again = MonoModel.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())
    model.save_pretrained(tmp_path)
    assert [path.name for path in sorted(tmp_path.glob("model*"))] == ["model.safetensors"]


def test_entries_that_are_not_ours_are_handed_on(tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path / "a", {"template": "chatml", "auto_map": {"AutoModel": "x"}})
    path = tmp_path / "a" / "config.json"
    entries = json.loads(path.read_text())
    entries["llm_config"]["initializer_range"] = 0.5
    path.write_text(json.dumps(entries))
    MonoModel.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    assert json.loads((tmp_path / "b" / "config.json").read_text()) == entries


def test_dtypes_are_those_of_the_files_but_float16_becomes_float32(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    halves = {name: value.half() for name, value in tensors.items()}
    save_file(halves, tmp_path / "model.safetensors")
    model = MonoModel.from_pretrained(tmp_path)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert torch.equal(
        model.embed.weight.half(), halves["language_model.model.embed_tokens.weight"]
    )
    some = {name: value.bfloat16() if "mlp1" in name else value for name, value in tensors.items()}
    save_file(some, tmp_path / "model.safetensors")
    mixed = MonoModel.from_pretrained(tmp_path)
    assert {value.dtype for value in mixed.state_dict().values()} == {torch.float32}
    chosen = MonoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {value.dtype for value in chosen.state_dict().values()} == {torch.bfloat16}


def test_float16_is_refused_wherever_it_comes_from(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="float16 overflows"):
        MonoModel.from_pretrained(tmp_path, dtype=torch.float16)
    model = MonoModel.from_pretrained(tmp_path)
    ids = torch.tensor([[5, 6]])
    with torch.autocast("cpu", torch.float16), pytest.raises(ValueError, match="float16 overflows"):
        model(ids)
    with torch.autocast("cpu", torch.bfloat16):
        model(ids)
    with pytest.raises(ValueError, match="float16 overflows"):
        model.half()(ids)


def test_another_image_size_resizes_the_table_and_keeps_it_in_the_file(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path / "a")
    wider = MonoModel.from_pretrained(tmp_path / "a", image_size=24).eval()
    ids = torch.tensor([[5, *[IMAGE] * 9]])
    pixels = torch.randn(1, 3, 24, 24)
    with torch.no_grad():
        assert torch.equal(wider(ids, pixels).logits, model(ids, pixels).logits)
    wider.save_pretrained(tmp_path / "b")
    again = MonoModel.from_pretrained(tmp_path / "b")
    assert again.config.patchifier == PatchifierConfig(24, 4, 6, table_size=16)
    assert torch.equal(again.patchifier.positions, model.patchifier.positions)


def test_a_tied_head_is_stored_too_since_the_official_code_wants_it(tmp_path: Path) -> None:
    config = tiny_config(ExpertsConfig(ffn=EVERY), family="internlm2", tied=True)
    tiny_model(config).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    head, words = "language_model.output.weight", "language_model.model.tok_embeddings.weight"
    assert torch.equal(tensors[head], tensors[words])
    del tensors[head]
    save_file(tensors, path)
    assert MonoModel.from_pretrained(tmp_path).config == config
    save_file({**tensors, head: -tensors[words]}, path)
    untied = MonoModel.from_pretrained(tmp_path)
    assert not untied.config.decoder.tied
    assert torch.equal(untied.head.weight, -untied.embed.weight)


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


@pytest.mark.parametrize("where", ["", "img_context_token_id", "added_tokens.json", "decoder"])
def test_the_placeholders_id_is_found_where_checkpoints_say_it(where: str, tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    entries = json.loads(path.read_text())
    del entries["img_context_token_id"]
    if where == "img_context_token_id":
        entries["image_token_id"] = IMAGE
    if where == "added_tokens.json":
        (tmp_path / where).write_text(json.dumps({"<IMG_CONTEXT>": IMAGE}))
    if where == "decoder":
        declared = {
            "added_tokens_decoder": {"2": {"content": "x"}, "3": {"content": "<IMG_CONTEXT>"}}
        }
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(declared))
    path.write_text(json.dumps(entries))
    model = MonoModel.from_pretrained(tmp_path)
    assert model.config.image_context_id == (IMAGE if where else None)


# -- faults ----------------------------------------------------------------------------------------


def _edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
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


def _lose_a_shard(folder: Path) -> None:
    MonoModel.from_pretrained(folder).save_pretrained(folder, shard_bytes=4_000)
    sorted(folder.glob("model-*"))[1].unlink()


def _lead_outside(folder: Path) -> None:
    MonoModel.from_pretrained(folder).save_pretrained(folder, shard_bytes=4_000)
    path = folder / "model.safetensors.index.json"
    path.write_text(path.read_text().replace("model-00001", "../model-00001"))


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "no model folder"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors is missing"),
    "a pickle": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "pytorch_model.bin is a pickle, which can run code, and is not read; convert.*python -c",
    ),
    "cut weights": (_truncate, r"model\.safetensors is damaged or cut short.*fetch or copy it"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "damaged or cut short"),
    "missing shard": (_lose_a_shard, r"model-00002-of-\d+\.safetensors is missing"),
    "outside": (_lead_outside, "is not a file of this folder"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), r"config\.json is not JSON"),
    "not text": (lambda f: (f / "config.json").write_bytes(b"\xff"), r"config\.json is not JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "not a JSON object"),
    "no type": (_edit(lambda e: e.pop("model_type")), "no key model_type"),
    "another model": (_edit(lambda e: e.update(model_type="llava")), "family 'llava'"),
    "no decoder": (_edit(lambda e: e.pop("llm_config")), "no key llm_config"),
    "no shape": (_edit(lambda e: e["llm_config"].pop("vocab_size")), "no key vocab_size"),
    "unknown architecture": (
        _edit(lambda e: e["llm_config"].update(architectures=["GPTForCausalLM"])),
        "unknown llm_config.architectures 'GPTForCausalLM'; known are InternLM2",
    ),
    "no architecture": (_edit(lambda e: e["llm_config"].pop("architectures")), "architectures ''"),
    "no such layer": (
        _edit(lambda e: e["llm_config"]["visual_experts"].update(ffn=[7])),
        "visual_experts must list layers below 2 for ffn",
    ),
    "another vision encoder": (
        _edit(lambda e: e["vision_config"].update(model_type="siglip_vision_model")),
        "'siglip_vision_model' is not supported",
    ),
    "LoRA": (_edit(lambda e: e.update(use_llm_lora=16)), "merge the LoRA weights"),
    "quantised": (
        _edit(lambda e: e["llm_config"].update(quantization_config={})),
        "weights are quantised",
    ),
    "order": (_edit(lambda e: e.update(ps_version="v3")), "ps_version 'v3'"),
    "ratio": (_edit(lambda e: e.update(downsample_ratio=0.3)), "downsample_ratio 0.3"),
    "size": (_edit(lambda e: e.update(force_image_size=17)), "image_size 17 is no multiple"),
    "impossible": (_edit(lambda e: e["llm_config"].update(num_key_value_heads=3)), "kv_heads 3"),
    "other shape": (
        _edit(lambda e: e["llm_config"].update(intermediate_size=8)),
        r"mlp\.gate_proj\.weight has shape \(24, 16\), config.json says \(8, 16\)",
    ),
    "missing tensor": (
        _tensors(lambda t: t.pop("mlp1.0.weight")),
        r"no tensor mlp1\.0\.weight \(1 missing in all\)",
    ),
    "unknown tensor": (
        _tensors(lambda t: t.update(extra=torch.zeros(1))),
        "tensor extra has no place",
    ),
    "bytes": (
        _tensors(lambda t: t.update({"mlp1.0.weight": torch.zeros(24, dtype=torch.int8)})),
        r"mlp1\.0\.weight is stored as I8",
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


@pytest.mark.parametrize(
    ("path", "error"), [("org/model", AssetError), ("/no/where", CheckpointError)]
)
def test_a_model_that_is_nowhere_is_named(
    path: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(error, match=path) as caught:
        MonoModel.from_pretrained(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_hub_id_loads_what_the_hub_cache_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    model = tiny_model()
    repository, commit = tmp_path / "models--org--tiny", "0" * 40
    model.save_pretrained(repository / "snapshots" / commit, shard_bytes=4_000)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    loaded = MonoModel.from_pretrained("org/tiny")
    assert loaded.config == model.config
    assert torch.equal(loaded.head.weight, model.head.weight)


def test_a_folder_that_cannot_be_made_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        tiny_model().save_pretrained(tmp_path / "file")
