"""The least time that the work can take: operations and bytes counted, over what the machine does.

Operations are those of matrix products (`lightning_mono.plan.flops`): each token meets the weights
of its modality, the head meets the rows that are asked for, and of attention's products only the
causal half is counted, T (T + 1) / 2 pairs of a row of T tokens.

Of the last layer an answer needs keys and values of all tokens, for the cache and for the last
query, and of all else only the rows that the head reads. The lower floor counts just these.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch import Tensor

from lightning_mono.bench.prompts import Prompt
from lightning_mono.model import MonoConfig, MonoModel
from lightning_mono.plan.flops import Product, count
from lightning_mono.plan.flow import Flow, flow_of
from lightning_mono.plan.microbatch import MicroBatch


@dataclass(frozen=True)
class Operations:
    """Of matrix products.

    Attributes:
        every: with all positions in all layers.
        needed: without those that nothing reads in the last layer.
    """

    every: float
    needed: float


def prefill(config: MonoConfig, prompt: Prompt) -> Operations:
    """From ids and pixels to the logits of one next token a row."""
    last = prompt.batch * 1.0
    pairs = prompt.batch * float(prompt.tokens)
    return _operations(config, prompt, (), _Read(text=last, visual=0.0, pairs=pairs))


def training(config: MonoConfig, prompt: Prompt, train: Collection[str]) -> Operations:
    """Forward and backward of a batch whose text behind the image is predicted.

    Args:
        train: parameter groups that learn.
    """
    behind = prompt.text - prompt.front
    # The first word is predicted from the image's last token, the last one predicts nothing.
    text, visual = prompt.batch * (behind - 1.0), prompt.batch * 1.0
    first = prompt.tokens - behind
    sums = sum(range(first, prompt.tokens))  # a query at position p (from 0) sees p + 1 keys
    return _operations(config, prompt, train, _Read(text, visual, prompt.batch * float(sums)))


@dataclass(frozen=True)
class _Read:
    """Rows whose logits are asked for, by modality, and the pairs that their queries see."""

    text: float
    visual: float
    pairs: float


def _operations(
    config: MonoConfig, prompt: Prompt, train: Collection[str], read: _Read
) -> Operations:
    batch = MicroBatch(
        rows=prompt.batch,
        length=prompt.tokens,
        visual=prompt.batch * prompt.visual,
        targets=read.text + read.visual,
        tiles=prompt.batch * prompt.tiles(config),
        useful=prompt.batch * prompt.tokens,
        samples=prompt.batch,
        masked=False,
    )
    flow = flow_of(config, train)
    counted = count(config, flow, batch, checkpointing=False).total
    decoder = config.decoder
    width = 4 * decoder.heads * decoder.head_dim  # operations a pair, of two products
    above = prompt.batch * (prompt.tokens * (prompt.tokens - 1) / 2)
    pairs = prompt.batch * (prompt.tokens * (prompt.tokens + 1) / 2)
    every = counted - width * above * sum(1 + 2 * needs.heads for needs in flow.layers)
    unread = width * (pairs - read.pairs) * (1 + 2 * flow.layers[-1].heads)
    unread += sum(
        product.forward + product.backward
        for rows, visual in ((batch.text - read.text, False), (batch.visual - read.visual, True))
        for product in _last_layer(config, flow, rows, visual=visual)
    )
    return Operations(every, every - unread)


def _last_layer(config: MonoConfig, flow: Flow, rows: float, *, visual: bool) -> Iterator[Product]:
    """What the last layer computes of rows beside their keys and values."""
    decoder, experts, needs = config.decoder, config.experts, flow.layers[-1]
    last = decoder.layers - 1
    q, ffn = (decoder.hidden_size * n for n in (decoder.heads * decoder.head_dim, decoder.ffn_size))
    trains = flow.trains("attention", visual=visual and last in experts.attention)
    yield Product(rows, q, needs.normed, trains)
    yield Product(rows, q, needs.heads, trains)
    trains = flow.trains("ffn", visual=visual and last in experts.ffn)
    yield Product(rows, 2 * ffn, needs.normed_middle, trains)
    yield Product(rows, ffn, needs.normed_middle or trains, trains)


def step_bytes(model: MonoModel, batch: int, tokens: int) -> int:
    """Bytes that a decoding step reads and writes at the very least.

    The weights of text, each once, but for the embeddings, of which a row each; keys and values of
    ``tokens`` cached tokens a row, once for all query heads; and the new ones, written.
    """
    item = model.embed.weight.itemsize
    decoder = model.config.decoder
    numbers = 2 * decoder.layers * decoder.kv_heads * decoder.head_dim * (tokens + 1)
    read = sum(p.numel() * p.itemsize for p in _of_a_step(model))
    return read + batch * (numbers + decoder.hidden_size) * item


def step_operations(model: MonoModel, batch: int, tokens: int) -> int:
    """Of the matrix products of a decoding step; a new token sees itself, too."""
    decoder = model.config.decoder
    weights = sum(p.numel() for p in _of_a_step(model) if p.dim() > 1)
    pairs = decoder.layers * decoder.heads * (tokens + 1)
    return batch * (2 * weights + 4 * pairs * decoder.head_dim)


def _of_a_step(model: MonoModel) -> list[Tensor]:
    """Parameters that a new token of text meets, the embeddings left out where they are no head."""
    met = ("layers.", "norm.", "embed." if model.head is None else "head.")
    return [
        parameter
        for name, parameter in model.named_parameters()
        if name.startswith(met) and ".visual." not in name
    ]
