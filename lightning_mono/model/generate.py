"""Autoregressive decoding with a preallocated cache: greedy, or sampled under a seed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_mono.model.batch import Batch
from lightning_mono.model.cache import KVCache
from lightning_mono.model.layout import ModalityLayout
from lightning_mono.model.mask import allowed_pairs

if TYPE_CHECKING:
    from lightning_mono.model.mono import MonoModel


def generate(
    model: MonoModel,
    input_ids: Tensor,
    pixel_values: Tensor | None = None,
    attention_mask: Tensor | None = None,
    tiles_per_sample: Tensor | None = None,
    max_new_tokens: int = 16,
    *,
    stop_ids: Collection[int] = (),
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    seed: int | None = None,
) -> Tensor:
    """Continues every row of a batch.

    Args:
        input_ids: prompts, (batch, tokens) int64, padded on either side where they are ragged.
        pixel_values: tiles of all prompts in order, (tiles, 3, size, size).
        attention_mask: (batch, tokens), 0 where a token is padding.
        tiles_per_sample: (batch,) whose tiles are whose; checked where given.
        max_new_tokens: at most so many new ids.
        stop_ids: a row that emits one of these is done; what follows in it repeats that id.
        temperature: 0 takes the most likely id; above, samples from softmax(logits / temperature).
        top_p: samples from the smallest set of ids whose probabilities sum to this.
        top_k: samples from the k most likely ids; 0 means all.
        seed: makes sampling repeatable.

    Returns:
        (batch, new) int64, new ids only, new <= max_new_tokens.
    """
    steps = list(
        stream(
            model,
            input_ids,
            pixel_values,
            attention_mask,
            tiles_per_sample,
            max_new_tokens,
            stop_ids=stop_ids,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            seed=seed,
        )
    )
    return torch.stack(steps, dim=1) if steps else input_ids[:, :0]


@torch.inference_mode()
def stream(
    model: MonoModel,
    input_ids: Tensor,
    pixel_values: Tensor | None = None,
    attention_mask: Tensor | None = None,
    tiles_per_sample: Tensor | None = None,
    max_new_tokens: int = 16,
    *,
    stop_ids: Collection[int] = (),
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    seed: int | None = None,
) -> Iterator[Tensor]:
    """Yields one id a row, (batch,) int64, until all rows stopped; arguments as in generate."""
    if not 0.0 < top_p <= 1.0 or temperature < 0.0 or top_k < 0:
        raise ValueError("need temperature >= 0, 0 < top_p <= 1 and top_k >= 0")
    if attention_mask is not None:
        input_ids, attention_mask = _pad_in_front(input_ids, attention_mask)
    batch = model.batch(input_ids, pixel_values, attention_mask, tiles_per_sample)
    generator = None
    if seed is not None:
        generator = torch.Generator(model.device).manual_seed(seed)
    rows, tokens = input_ids.shape
    cache = KVCache(
        model.config.decoder,
        rows,
        tokens + max_new_tokens,
        device=model.device,
        dtype=model.embed.weight.dtype,
    )
    stops = torch.tensor(sorted(stop_ids), device=model.device, dtype=torch.int64)
    done = torch.zeros(rows, dtype=torch.bool, device=model.device)
    last = torch.zeros(rows, dtype=torch.int64, device=model.device)
    for step in range(max_new_tokens):
        hidden = _read(model, batch, cache)
        logits = model.logits(hidden[:, -1]).float()
        new = _pick(logits, temperature, top_p, top_k, generator)
        last = torch.where(done, last, new)
        yield last
        done |= torch.isin(last, stops)
        if step + 1 == max_new_tokens or bool(done.all()):
            return
        batch = _next(batch, last)


def _read(model: MonoModel, batch: Batch, cache: KVCache) -> Tensor:
    """Runs one chunk behind what the cache holds."""
    mask = None
    tokens = batch.documents.shape[1]
    if not batch.plain or (cache.length > 0 and tokens > 1):
        documents = torch.cat([cache.documents[:, : cache.length], batch.documents], dim=1)
        mask = allowed_pairs(
            batch.documents,
            batch.branches,
            documents,
            torch.zeros_like(documents),
            offset=cache.length,
        )
    hidden = model.hidden(batch, mask=mask, cache=cache)
    cache.advance(batch.documents)
    return hidden


def _next(batch: Batch, ids: Tensor) -> Batch:
    """A batch of one more text token a row."""
    column = ids[:, None]
    ones = torch.ones_like(column, dtype=torch.int32)
    return Batch(
        input_ids=column,
        positions=batch.positions[:, -1:] + 1,
        documents=ones,
        branches=torch.zeros_like(ones),
        layout=ModalityLayout.all_text(column.shape[0], 1, column.device),
        pixel_values=batch.pixel_values[:0],
        predict=column[:0, 0],
        targets=column[:0, 0],
        weights=column[:0, 0],
        tokens=column.shape[0],
        plain=batch.plain,
    )


def _pad_in_front(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Moves every row's padding to its left, keeping the order of its real tokens."""
    order = attention_mask.bool().long().argsort(dim=1, stable=True)
    return input_ids.gather(1, order), attention_mask.gather(1, order)


def _pick(
    logits: Tensor,
    temperature: float,
    top_p: float,
    top_k: int,
    generator: torch.Generator | None,
) -> Tensor:
    """Chooses an id from (batch, vocabulary) fp32 logits."""
    if temperature == 0.0:
        return logits.argmax(-1)
    logits = logits / temperature
    if top_k:
        kth = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, float("-inf"))
    if top_p < 1.0:
        ranked, order = logits.sort(dim=-1, descending=True)
        probabilities = ranked.softmax(-1)
        outside = probabilities.cumsum(-1) - probabilities >= top_p
        keep = torch.ones_like(outside).scatter(1, order, ~outside)
        logits = logits.masked_fill(~keep, float("-inf"))
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
