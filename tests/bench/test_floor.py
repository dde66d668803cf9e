"""Operations are those that PyTorch counts; bytes are those of the parameters that are met."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lightning_mono.bench import floor
from lightning_mono.bench.prefill import plain
from lightning_mono.bench.prompts import Prompt
from lightning_mono.bench.subject import Subject, random_model
from lightning_mono.bench.training import Training
from lightning_mono.model import ExpertsConfig, MonoConfig
from lightning_mono.objectives import next_token_loss
from lightning_mono.testing import tiny_config, tiny_model

from .conftest import CPU

PROMPTS = [Prompt(tokens=20, text=8), Prompt(tokens=14, text=6, batch=2)]
CONFIGS = {
    "EViP": tiny_config(ExpertsConfig(ffn=(0, 1))),
    "every expert": tiny_config(),
    "some, tied": tiny_config(ExpertsConfig(ffn=(1,), attention=(0,)), tied=True),
}


def _above(config: MonoConfig, prompt: Prompt, layers: int) -> float:
    """Operations of attention above the diagonal, which the plain products of it compute, too."""
    width = config.decoder.heads * config.decoder.head_dim
    return 4 * width * layers * prompt.batch * prompt.tokens * (prompt.tokens - 1) / 2


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_operations_of_a_prompt(config: MonoConfig, prompt: Prompt) -> None:
    """All positions, and what a session computes: of the last layer just what is read."""
    model, layers = tiny_model(config), config.decoder.layers
    ids, pixels = prompt.inputs(config)
    work = floor.prefill(config, prompt)
    with sdpa_kernel(SDPBackend.MATH):  # the one whose products the counter sees on a CPU
        with FlopCounterMode(display=False) as everywhere:
            plain(model, ids, pixels)
        with FlopCounterMode(display=False) as ours:
            model.session(prompt.batch).read(ids, pixels)
    assert everywhere.get_total_flops() == work.every + _above(config, prompt, layers)
    assert ours.get_total_flops() == work.needed + _above(config, prompt, layers - 1)


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("words", [["patchifier", "experts.ffn"], ["everything"], ["ffn"]])
def test_operations_of_a_step(prompt: Prompt, words: list[str], subject: Subject) -> None:
    config = subject.config
    training = Training(replace(subject, train=tuple(words)))
    batch, model = training._batch(prompt), training.module.model
    work = floor.training(config, prompt, training.train)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as everywhere:
        hidden = model.hidden(batch).flatten(0, 1)[batch.predict][None]
        next_token_loss(model, batch, hidden).backward()
    ways = [1 + 2 * any(_reached(words, depth)) for depth in range(config.decoder.layers)]
    assert everywhere.get_total_flops() == work.every + _above(config, prompt, 1) * sum(ways)
    assert work.needed < work.every


def _reached(words: list[str], depth: int) -> list[bool]:
    """Whether a layer's attention needs gradients: something before it, or in it, learns."""
    return [words != ["ffn"], depth > 0]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_operations_that_a_step_needs(prompt: Prompt, subject: Subject) -> None:
    """Our step, but for the last layer's queries, which it computes everywhere."""
    training = Training(subject)
    batch, decoder = training._batch(prompt), subject.config.decoder
    work = floor.training(subject.config, prompt, training.train)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as ours:
        training.module.part_loss(batch, batch.weights.sum()).backward()
    width = decoder.heads * decoder.head_dim
    read = batch.predict % prompt.tokens
    unread = prompt.batch * prompt.tokens - len(read)
    pairs = prompt.batch * prompt.tokens * (prompt.tokens + 1) / 2 - float((read + 1).sum())
    # There, and back to what is normed, whose weights are frozen; scores and mixing thrice.
    queries = 2 * unread * decoder.hidden_size * width * 2 + 3 * 4 * pairs * width
    above = 3 * _above(subject.config, prompt, decoder.layers)
    assert ours.get_total_flops() == work.needed + queries + above


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_of_a_step(tied: bool, dtype: torch.dtype) -> None:
    model = tiny_model(tiny_config(tied=tied), dtype=dtype)
    decoder = model.config.decoder
    text = {
        name: parameter.numel() * parameter.itemsize
        for name, parameter in model.named_parameters()
        if ".visual." not in name and not name.startswith(("patchifier.", "embed."))
    }
    table = decoder.vocab_size * decoder.hidden_size * dtype.itemsize
    weights = sum(text.values()) + (table if tied else 0)
    column = 2 * decoder.layers * decoder.kv_heads * decoder.head_dim * dtype.itemsize
    row = decoder.hidden_size * dtype.itemsize
    assert floor.step_bytes(model, 1, 0) == weights + column + row
    assert floor.step_bytes(model, 3, 7) == weights + 3 * (8 * column + row)


@pytest.mark.parametrize("tokens", [1, 9])
@pytest.mark.parametrize("tied", [False, True])
def test_operations_of_a_token(tokens: int, tied: bool) -> None:
    model = random_model(tiny_config(tied=tied), CPU, torch.float32)
    session = model.session(2)
    session.read(torch.ones(2, tokens, dtype=torch.int64))
    word = torch.ones(2, 1, dtype=torch.int64)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        session.read(word)
    assert counted.get_total_flops() == floor.step_operations(model, 2, tokens)
