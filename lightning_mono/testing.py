"""Tiny models, batches and recipes with random weights: for this library's tests and for yours."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from lightning_mono.backbones import Backbone, DecoderConfig, tensor_shapes, train_bpe
from lightning_mono.kernels import KERNELS, why_not
from lightning_mono.model import Batch, ExpertsConfig, MonoConfig, MonoModel, PatchifierConfig
from lightning_mono.recipe import Recipe, load_recipe

IMAGE = 3
"""Id of the image placeholder in :func:`tiny_config`; other ids below 64 are words."""

Document = Sequence[Sequence[int]]
"""Token ids of a shared prefix, and of each branch behind it."""

TINY_RECIPE = """\
# A recipe that shares every section with real ones and costs nothing to check.
name: tiny
model:
  scratch:
    {layers: 2, hidden_size: 16, heads: 4, kv_heads: 2, ffn_size: 24, vocab_size: 300,
     tokenizer_data: text}
  patchifier: {kind: conv, patch_size: 4, width: 6, merge: 2}
  experts: {ffn: all, attention: last:1}
image: {size: 16}
optim: {lr: 1.0e-3, warmup_steps: 2, schedule: cosine}
data:
  text: {sources: {docs: {source: stdlib_docs}}, sequence_length: 32, batch_size: 2}
stages:
  first: {duration: 3 steps, train: [patchifier, experts.ffn], data: text}
  second: {duration: 4 steps, train: [experts, attention], data: text, lr_scale: {attention: 0.1}}
"""


def kernels_here(dtype: torch.dtype = torch.float32) -> list[str]:
    """Names of the kernels that run on a CPU in ``dtype``; Triton's needs its slow interpreter."""
    cpu = torch.device("cpu")
    return [n for n in KERNELS if not n.startswith("triton") and why_not(n, cpu, dtype) is None]


def tiny_decoder(**changes: Any) -> DecoderConfig:
    """Two layers, four heads on two, 16 channels, 64 words; any setting changed."""
    config = DecoderConfig(
        family="llama",
        vocab_size=64,
        hidden_size=16,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=4,
        ffn_size=24,
        rms_eps=1e-5,
        rope_theta=10_000.0,
        rope_scaling=None,
        max_positions=128,
    )
    return replace(config, **changes)


def tiny_config(experts: ExpertsConfig | None = None, **decoder: Any) -> MonoConfig:
    """A tiny decoder with a patchifier of 4 tokens a tile of 16 x 16 pixels.

    Args:
        experts: by default of every kind in every layer.
        decoder: settings of :func:`tiny_decoder` to change.
    """
    config = tiny_decoder(**decoder)
    every = tuple(range(config.layers))
    return MonoConfig(
        decoder=config,
        patchifier=PatchifierConfig(image_size=16, patch_size=4, width=6, merge=2),
        experts=experts or ExpertsConfig(ffn=every, attention=every, norms=every),
        image_context_id=IMAGE,
    )


def tiny_model(
    config: MonoConfig | None = None, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> MonoModel:
    """A model in which every parameter, experts and patchifier included, is random."""
    model = MonoModel(config or tiny_config()).to(dtype)
    randomize(model, seed=seed)
    return model.eval()


@torch.no_grad()
def randomize(model: MonoModel, *, seed: int, only: Sequence[str] = ("",)) -> None:
    """Draws parameters anew; ``only`` those whose names hold one of these pieces."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if any(piece in name for piece in only):
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(centre + 0.3 * drawn)


@cache
def _tokenizer_text() -> str:
    return train_bpe(["a red circle", "a blue square", "is it red? yes"] * 4, 280).to_str()


def tiny_backbone(*, seed: int = 0, **changes: Any) -> Backbone:
    """A random text LLM with a tokenizer of its own; settings of :func:`tiny_decoder` changed."""
    tokenizer = Tokenizer.from_str(_tokenizer_text())
    config = tiny_decoder(**{"vocab_size": tokenizer.get_vocab_size(), **changes})
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(shape, generator=generator) * 0.3
        for name, shape in tensor_shapes(config).items()
    }
    return Backbone("tiny", config, tensors, tokenizer, "plain", None, 2, 0, (2, 0))


def tiny_tiles(ids: torch.Tensor, config: MonoConfig, *, seed: int = 0) -> torch.Tensor:
    """Random pixels for as many tiles as the ids have room for: (tiles, 3, size, size) fp32."""
    if config.patchifier is None:
        return torch.zeros(0, 3, 0, 0)
    size = config.patchifier.image_size
    count = (
        int(torch.eq(ids, config.image_context_id or -1).sum()) // config.patchifier.tokens_per_tile
    )
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, size, size, generator=generator)


def tiny_batch(
    rows: Sequence[Sequence[Document]],
    config: MonoConfig,
    *,
    pixel_values: torch.Tensor | None = None,
    seed: int = 0,
) -> Batch:
    """Packs documents with their branches into rows, padded behind to the longest.

    Every token that has one before it in its prefix or branch is supervised.

    Args:
        rows: the documents of each row.
        pixel_values: by default random under ``seed``, as many tiles as there is room for.
    """
    width = max(sum(len(part) for document in row for part in document) for row in rows)
    shape = (len(rows), width)
    ids, positions = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    documents = torch.zeros(shape, dtype=torch.int32)
    branches = torch.zeros(shape, dtype=torch.int32)
    supervised = torch.zeros(shape, dtype=torch.bool)
    for row, packed in enumerate(rows):
        at = 0
        for number, document in enumerate(packed, start=1):
            prefix = len(document[0])
            for branch, part in enumerate(document):
                here = slice(at, at + len(part))
                start = prefix if branch else 0
                ids[row, here] = torch.tensor(part, dtype=torch.int64)
                positions[row, here] = torch.arange(start, start + len(part))
                documents[row, here], branches[row, here] = number, branch
                supervised[row, at + 1 : here.stop] = True
                at = here.stop
    return Batch.build(
        input_ids=ids,
        positions=positions,
        documents=documents,
        branches=branches,
        supervised=supervised,
        pixel_values=tiny_tiles(ids, config, seed=seed) if pixel_values is None else pixel_values,
        image_context_id=config.image_context_id,
    )


def write_tiny_recipe(folder: Path, text: str = TINY_RECIPE) -> Path:
    """Writes a recipe to ``folder/tiny.yaml``."""
    path = folder / "tiny.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def tiny_recipe(*overrides: str) -> Recipe:
    """A small valid recipe of two stages, with ``key=value`` overrides."""
    with tempfile.TemporaryDirectory() as folder:
        return load_recipe(write_tiny_recipe(Path(folder)), overrides)
