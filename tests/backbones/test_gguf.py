"""GGUF files: number formats against the reference, rotary order, and every fault named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_mono.backbones import Backbone, load_backbone, tensor_shapes
from lightning_mono.backbones.families.llama import GGUF_NAMES
from lightning_mono.backbones.families.stored import stored
from lightning_mono.backbones.gguf import GgufFile, rotate_half_order
from lightning_mono.backbones.quants import FORMATS
from lightning_mono.errors import CheckpointError

MakeBackbone = Callable[..., Backbone]
gguf = pytest.importorskip("gguf", reason="the reference writer of GGUF files is not installed")


def write(path: Path, backbone: Backbone, **changes: Any) -> Path:
    """Writes a backbone with the reference writer, q and k in interleaved order."""
    config, vocabulary = backbone.config, backbone.tokenizer.get_vocab()
    merges = json.loads(backbone.tokenizer.to_str())["model"]["merges"]
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    writer = gguf.GGUFWriter(path, changes.get("architecture", "llama"))
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.ffn_size)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.rms_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(changes.get("rotary", config.head_dim))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(changes.get("pre", "smollm"))
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(1)
    if "eos" not in changes:
        writer.add_eos_token_id(2)
    writer.add_chat_template("<|im_start|>")
    for entry in stored(tensor_shapes(config), GGUF_NAMES):
        theirs, ours = entry.name, entry.ours[0]
        value = backbone.tensors[ours]
        if ".qkv.text.q." in ours:
            value = interleaved(value, config.heads)
        if ".qkv.text.k." in ours:
            value = interleaved(value, config.kv_heads)
        writer.add_tensor(theirs, value.numpy())
    for name in changes.get("extra", ()):
        writer.add_tensor(name, np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Row (head, half, pair) to row (head, pair, half), as llama.cpp's converter does."""
    halves = weight.unflatten(0, (heads, 2, -1))
    return halves.transpose(1, 2).reshape(weight.shape).contiguous()


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load_backbone(str(path))
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_number_format_decodes_as_the_reference_does(kind: int) -> None:
    form = FORMATS[kind]
    raw = np.random.default_rng(0).integers(0, 256, 64 * form.block.itemsize).astype(np.uint8)
    blocks = raw.view(form.block)
    for field in ("d", "m"):
        if field in (form.block.names or ()):
            blocks[field] = np.random.default_rng(1).normal(size=64).astype(np.float16)
    if form.values == 1:
        blocks["q"] = np.random.default_rng(1).integers(0, 1 << 14, 64)
    expected = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(kind))
    assert np.array_equal(form.decode(blocks).reshape(-1), expected.reshape(-1))
    assert gguf.GGMLQuantizationType(kind).name == form.name


@pytest.mark.parametrize("changes", [{}, {"tied": True}, {"qkv_bias": True, "out_bias": True}])
def test_a_written_model_is_read_back(
    changes: dict[str, Any], tmp_path: Path, make_backbone: MakeBackbone
) -> None:
    backbone = make_backbone(**changes)
    loaded = load_backbone(str(write(tmp_path / "tiny.gguf", backbone)))
    for name, tensor in backbone.tensors.items():
        assert torch.equal(loaded.tensors[name], tensor), name
    assert loaded.tensors.keys() == backbone.tensors.keys()
    assert loaded.config.rms_eps == pytest.approx(backbone.config.rms_eps)
    text = "Is a red circle 12 é 🙂?<|im_end|>"
    assert loaded.tokenizer.encode(text).ids == backbone.tokenizer.encode(text).ids
    assert (loaded.name, loaded.chat) == ("tiny", "chatml")
    assert (loaded.bos_id, loaded.eos_id, loaded.pad_id, loaded.stop_ids) == (1, 2, 2, (2, 0))


def test_rotary_order_is_undone_head_by_head() -> None:
    weight = torch.arange(24.0).view(12, 2)
    assert torch.equal(rotate_half_order(interleaved(weight, 2), 2), weight)
    assert rotate_half_order(torch.arange(8), 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize("part", [0.0, 1e-4, 0.01, 0.05, 0.5, 0.999])
def test_a_file_cut_short_anywhere_is_refused(
    part: float, tmp_path: Path, make_backbone: MakeBackbone
) -> None:
    path = write(tmp_path / "tiny.gguf", make_backbone())
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    assert any(word in refusal(path) for word in ("cut short", "empty", "not a GGUF"))


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"PK\3\4" * 20)
    assert "not a GGUF file" in refusal(tmp_path / "a.gguf")
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + (9).to_bytes(4, "little") * 20)
    assert "version 9 is not supported" in refusal(tmp_path / "a.gguf")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"architecture": "qwen9"}, "family 'qwen9' is not supported"),
        ({"pre": "deepseek"}, "(gpt2, deepseek) is not supported"),
        ({"rotary": 4}, "a part of each head"),
        ({"eos": None}, "no key tokenizer.ggml.eos_token_id"),
        ({"extra": ("rope_freqs.weight",)}, "rope scaling"),
        ({"extra": ("blk.0.ffn_gate.bias",)}, "blk.0.ffn_gate.bias has no place"),
    ],
)
def test_files_that_are_not_supported_are_refused(
    changes: dict[str, Any], part: str, tmp_path: Path, make_backbone: MakeBackbone
) -> None:
    assert part in refusal(write(tmp_path / "tiny.gguf", make_backbone(), **changes))


def test_an_unknown_number_format_is_named(tmp_path: Path, make_backbone: MakeBackbone) -> None:
    file = GgufFile(write(tmp_path / "tiny.gguf", make_backbone()))
    info = file.tensors["output_norm.weight"]
    file.tensors["output_norm.weight"] = type(info)(info.shape, 99, info.offset)
    with pytest.raises(CheckpointError, match=r"ggml format 99; supported are F32, F16, Q4_0"):
        file.read("output_norm.weight")
