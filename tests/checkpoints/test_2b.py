"""The published 2B shape: its parameter counts, and a checkpoint of that size on disk."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightning_mono.backbones.shards import write_weights
from lightning_mono.checkpoints import tensors as layout
from lightning_mono.checkpoints.config import write_config
from lightning_mono.model import MonoConfig, MonoModel
from lightning_mono.model.published import MONO_INTERNVL_2B
from lightning_mono.params import TEXT_PATH, grouped
from lightning_mono.testing import tiny_backbone


def _on_meta(config: MonoConfig) -> MonoModel:
    with torch.device("meta"):
        return MonoModel(config)


def _entries(config: MonoConfig) -> list[layout.Entry]:
    state = _on_meta(config).state_dict()
    return layout.entries(config, {name: tuple(value.shape) for name, value in state.items()})


def _billions(model: MonoModel) -> dict[str, float]:
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    groups = grouped(sizes)
    return {group: sum(sizes[name] for name in names) / 1e9 for group, names in groups.items()}


def test_the_2b_shape_has_the_published_sizes() -> None:
    counts = _billions(_on_meta(MONO_INTERNVL_2B))
    assert sum(counts.values()) == pytest.approx(3.11, abs=0.005)
    assert counts["experts.ffn"] == pytest.approx(1.21, abs=0.005)
    text = sum(count for group, count in counts.items() if group in TEXT_PATH)
    assert text == pytest.approx(1.89, abs=0.005)


def test_attention_experts_add_what_q_k_v_o_hold() -> None:
    experts = replace(MONO_INTERNVL_2B.experts, attention=MONO_INTERNVL_2B.experts.ffn)
    counts = _billions(_on_meta(replace(MONO_INTERNVL_2B, experts=experts)))
    assert counts["experts.attention"] == pytest.approx(0.302, abs=0.0005)
    assert counts["experts.attention"] == counts["attention"]


def test_the_2b_checkpoint_has_253_tensors_and_6_22_gigabytes() -> None:
    entries = _entries(MONO_INTERNVL_2B)
    assert len({entry.name for entry in entries}) == 253
    assert 2 * sum(math.prod(entry.shape) for entry in entries) / 1e9 == pytest.approx(
        6.22, abs=0.01
    )


READ = """
import json, sys, time
import torch
from lightning_mono.inference import Assistant
from PIL import Image

def peak():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines["VmHWM"].split()[0]) * 1024

start = peak()
begin = time.perf_counter()
assistant = Assistant.from_pretrained(sys.argv[1])
loaded, seconds = peak(), time.perf_counter() - begin
model = sum(value.nbytes for value in assistant.model.state_dict().values())
begin = time.perf_counter()
answer = assistant.answer([([Image.new("RGB", (448, 448), "red")], "What is it?")], 2)
print(json.dumps({
    "model_gb": model / 1e9, "start_gb": start / 1e9, "loaded_peak_gb": loaded / 1e9,
    "load_s": seconds, "answer_s": time.perf_counter() - begin, "answer": answer,
    "peak_gb": peak() / 1e9, "tensors": len(assistant.model.state_dict()),
}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads peak memory from /proc")
def test_a_2b_checkpoint_loads_in_bounded_memory_and_answers(tmp_path: Path) -> None:
    _write_2b(tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) == 2
    run = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    print(figures)
    assert figures["model_gb"] == pytest.approx(6.22, abs=0.01)
    assert figures["loaded_peak_gb"] < 1.15 * figures["model_gb"]


def _write_2b(folder: Path) -> None:
    """Random bfloat16 weights, made tensor by tensor; the tokenizer is a tiny one."""
    tokenizer = tiny_backbone().tokenizer
    tokenizer.add_special_tokens(["<s>", "</s>", "<img>", "</img>", "<IMG_CONTEXT>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = replace(MONO_INTERNVL_2B, image_context_id=tokenizer.token_to_id("<IMG_CONTEXT>"))
    generator = torch.Generator().manual_seed(0)
    noise = (torch.randn(1 << 20, generator=generator) * 0.02).bfloat16()

    def values() -> Iterator[tuple[str, torch.Tensor]]:
        for entry in _entries(config):
            count = math.prod(entry.shape)
            if "norm" in entry.name:
                yield entry.name, torch.ones(entry.shape, dtype=torch.bfloat16)
            else:
                drawn = noise.repeat(count // len(noise) + 1)[:count]
                yield entry.name, drawn.view(entry.shape).clone()

    write_weights(folder, values())
    further = {"template": "internlm2-chat", "dynamic_image_size": True, "use_thumbnail": True}
    (folder / "config.json").write_text(json.dumps(write_config(config, further)))
