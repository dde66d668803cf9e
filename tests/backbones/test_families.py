"""Every family against transformers: the same logits, the same words, and folders both can read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from lightning_mono.backbones import load_backbone, save_backbone
from lightning_mono.backbones.families import FAMILIES, internlm2
from lightning_mono.errors import CheckpointError
from lightning_mono.model import MonoModel
from lightning_mono.testing import tiny_decoder

transformers = pytest.importorskip("transformers")

COMMON: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
    "rope_theta": 500_000.0,
}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
# Name -> (model type, settings beside COMMON).
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "SmolLM2": ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "TinyLlama": ("llama", {}),
    "Llama 3": ("llama", {"rope_parameters": LLAMA3}),
    "Llama, dynamic": ("llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": 16}),
    "Llama, biases": ("llama", {"attention_bias": True}),
    "Qwen2": ("qwen2", {}),
    "Qwen2.5, tied": ("qwen2", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "Qwen3": ("qwen3", {"head_dim": 16}),
    "Qwen3, tied, biases": (
        "qwen3",
        {"head_dim": 8, "tie_word_embeddings": True, "attention_bias": True},
    ),
}
IDS = torch.arange(24)[None] * 7 % 300


def _oracle(kind: str, changes: dict[str, Any]) -> Any:
    """A transformers model in which every parameter, norms and biases included, is random."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **{**COMMON, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.3)
    return model


def _write(model: Any, folder: Path, tokenizer: Tokenizer, **options: Any) -> None:
    model.save_pretrained(folder, **options)
    tokenizer.save(str(folder / "tokenizer.json"))


def _agree(path: Path, oracle: Any) -> None:
    model = MonoModel.graft(load_backbone(str(path))).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, oracle(IDS).logits, atol=1e-5, rtol=0)
    oracle.generation_config.eos_token_id = None
    theirs = oracle.generate(IDS, max_new_tokens=64, do_sample=False)[:, IDS.shape[1] :]
    assert theirs.unique().numel() > 3, "a model that repeats itself proves little"
    assert torch.equal(model.generate(IDS, max_new_tokens=64), theirs)


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_of_transformers_is_the_same_model_here(
    name: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    oracle = _oracle(*MODELS[name])
    _write(oracle, tmp_path, tokenizer, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    _agree(tmp_path, oracle)


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_of_ours_is_the_same_model_in_transformers(
    name: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    oracle = _oracle(*MODELS[name])
    _write(oracle, tmp_path / "theirs", tokenizer)
    save_backbone(tmp_path / "ours", load_backbone(str(tmp_path / "theirs")))
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert type(again) is type(oracle)
    state = again.state_dict()
    assert all(torch.equal(state[key], value) for key, value in oracle.state_dict().items())
    with torch.no_grad():
        assert torch.equal(again(IDS).logits, oracle(IDS).logits)


# -- InternLM2, which transformers has only as remote code: Llama in other words ----------------


def _as_internlm2(folder: Path, out: Path, **changes: Any) -> None:
    """Writes a Llama folder as an InternLM2 folder; head by head, as the oracle of our packing."""
    theirs = json.loads((folder / "config.json").read_text())
    heads, kv_heads = theirs["num_attention_heads"], theirs["num_key_value_heads"]
    size = theirs["hidden_size"] // heads
    words = {
        "embed_tokens": "tok_embeddings",
        "lm_head": "output",
        "self_attn.o_proj": "attention.wo",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.up_proj": "feed_forward.w3",
        "mlp.down_proj": "feed_forward.w2",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    tensors, packed = load_file(folder / "model.safetensors"), {}
    for name, value in tensors.items():
        if "self_attn.q_proj" in name:
            blocks = []
            for kv in range(kv_heads):
                group = heads // kv_heads
                for q in range(kv * group, (kv + 1) * group):
                    blocks.append(value[q * size : (q + 1) * size])
                for other in "kv":
                    part = tensors[name.replace("q_proj", f"{other}_proj")]
                    blocks.append(part[kv * size : (kv + 1) * size])
            packed[name.replace("self_attn.q_proj", "attention.wqkv")] = torch.cat(blocks)
        elif "k_proj" not in name and "v_proj" not in name:
            for old, new in words.items():
                name = name.replace(old, new)
            packed[name] = value.clone()
    settings = {key: theirs[key] for key in (*COMMON, "rms_norm_eps") if key in theirs}
    settings |= {"model_type": "internlm2", "architectures": ["InternLM2ForCausalLM"]}
    out.mkdir()
    save_file(packed, out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(settings | changes))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_internlm2_is_llama_in_other_words(
    kv_heads: int, bias: bool, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    rope = {"rope_parameters": DYNAMIC, "max_position_embeddings": 16}
    changes = {"num_key_value_heads": kv_heads, "attention_bias": bias, **rope}
    oracle = _oracle("llama", changes)
    oracle.save_pretrained(tmp_path / "llama")
    words = {"bias": bias, "rope_theta": 10_000, "rope_scaling": {"type": "dynamic", "factor": 2.0}}
    _as_internlm2(tmp_path / "llama", tmp_path / "internlm2", **words)
    tokenizer.save(str(tmp_path / "internlm2/tokenizer.json"))
    _agree(tmp_path / "internlm2", oracle)
    backbone = load_backbone(str(tmp_path / "internlm2"))
    assert backbone.chat == "internlm2-chat"
    save_backbone(tmp_path / "again", backbone)
    before = load_file(tmp_path / "internlm2/model.safetensors")
    after = load_file(tmp_path / "again/model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    written = json.loads((tmp_path / "again/config.json").read_text())
    assert written["rope_scaling"] == {"type": "dynamic", "factor": 2.0}
    assert load_backbone(str(tmp_path / "again")).config == backbone.config


@settings(max_examples=40)
@given(
    kv_heads=st.integers(1, 4),
    group=st.integers(1, 4),
    half=st.integers(1, 3),
    tail=st.sampled_from([(), (5,)]),
)
def test_packing_is_undone_exactly(
    kv_heads: int, group: int, half: int, tail: tuple[int, ...]
) -> None:
    heads, size = kv_heads * group, 2 * half
    config = tiny_decoder(hidden_size=heads * size, heads=heads, kv_heads=kv_heads, head_dim=size)
    packed = torch.arange((heads + 2 * kv_heads) * size * (tail[0] if tail else 1))
    packed = packed.view(-1, *tail)
    q, k, v = internlm2.split(packed, config)
    assert (len(q), len(k), len(v)) == (heads * size, kv_heads * size, kv_heads * size)
    assert torch.equal(internlm2.join((q, k, v), config), packed)


# -- what a family cannot be ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "changes", "says"),
    [
        ("qwen2", {}, "biases on q, k and v and none on o"),
        ("qwen3", {"qkv_bias": True, "qk_norm": True}, "biases on all of q, k, v, o"),
        ("internlm2", {"out_bias": True}, "biases on all of q, k, v, o"),
        ("internlm2", {"head_dim": 8}, "heads x head_dim equal to its hidden size"),
    ],
)
def test_a_shape_that_a_layout_cannot_express_is_refused(
    family: str, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(CheckpointError, match=says):
        FAMILIES[family].write(tiny_decoder(family=family, **changes))


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_sliding_windows_are_refused(kind: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    _write(_oracle(kind, {}), tmp_path, tokenizer)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_sliding_window": True}))
    with pytest.raises(CheckpointError, match="use_sliding_window True is not supported"):
        load_backbone(str(tmp_path))
