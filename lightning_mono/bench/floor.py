"""The least time that the work can take: operations and bytes counted, over what the machine does.

Operations are those of matrix products (`lightning_mono.plan.flops`): each token meets the weights
of its modality, the head meets the rows that are asked for, and of attention's products only the
causal half is counted, T (T + 1) / 2 pairs of a row of T tokens.

Of the last layer an answer needs keys and values of all tokens, for the cache and for the last
query, and of all else only the rows that the head reads. The lower floor counts just these.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

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
    return _operations(config, prompt, (), _Rows(text=last, visual=0.0, pairs=pairs))


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
    return _operations(config, prompt, train, _Rows(text, visual, prompt.batch * float(sums)))


@dataclass(frozen=True)
class _Rows:
    """Tokens by modality, and the pairs that their queries see."""

    text: float
    visual: float
    pairs: float


def _operations(
    config: MonoConfig, prompt: Prompt, train: Collection[str], read: _Rows
) -> Operations:
    batch = MicroBatch(
        rows=prompt.batch,
        length=prompt.tokens,
        visual=prompt.batch * prompt.visual,
        targets=read.text + read.visual,
        tiles=prompt.batch * prompt.tiles(config),
        useful=prompt.batch * prompt.tokens,
        samples=prompt.batch,
        attended=prompt.batch * prompt.tokens**2,
        masked=False,
        split=False,
    )
    flow = flow_of(config, train)
    outside = count(config, replace(flow, layers=()), batch, checkpointing=False).total
    pairs = prompt.batch * (prompt.tokens * (prompt.tokens + 1) / 2)
    every = _Rows(batch.text, batch.visual, pairs)
    layers = [
        _keys_values(config, flow, depth, every) + _rest(config, flow, depth, every)
        for depth in range(config.decoder.layers)
    ]
    last = len(layers) - 1
    spared = _rest(config, flow, last, every) - _rest(config, flow, last, read)
    return Operations(outside + sum(layers), outside + sum(layers) - spared)


def _keys_values(config: MonoConfig, flow: Flow, depth: int, rows: _Rows) -> float:
    decoder, needs = config.decoder, flow.layers[depth]
    size = 2 * decoder.hidden_size * decoder.kv_heads * decoder.head_dim
    return sum(
        _both_ways(Product(count_, size, needs.normed, trains))
        for count_, trains in _sides(config, flow, depth, "attention", rows)
    )


def _rest(config: MonoConfig, flow: Flow, depth: int, rows: _Rows) -> float:
    """Of a layer, all that is no key or value, for the rows whose output is read."""
    decoder, needs = config.decoder, flow.layers[depth]
    width = decoder.heads * decoder.head_dim
    q, ffn = decoder.hidden_size * width, decoder.hidden_size * decoder.ffn_size
    # Scores and what they mix: a product each, and on the way back two of each.
    operations = 4 * rows.pairs * width * (1 + 2 * needs.heads)
    for count_, trains in _sides(config, flow, depth, "attention", rows):
        operations += _both_ways(Product(count_, q, needs.normed, trains))
        operations += _both_ways(Product(count_, q, needs.heads, trains))
    for count_, trains in _sides(config, flow, depth, "ffn", rows):
        operations += _both_ways(Product(count_, 2 * ffn, needs.normed_middle, trains))
        into = needs.normed_middle or trains
        operations += _both_ways(Product(count_, ffn, into, trains))
    return operations


def _sides(
    config: MonoConfig, flow: Flow, depth: int, kind: str, rows: _Rows
) -> list[tuple[float, bool]]:
    """Rows of text and of images, and whether the weights that they meet learn."""
    expert = depth in getattr(config.experts, kind)
    return [
        (rows.text, flow.trains(kind, visual=False)),
        (rows.visual, flow.trains(kind, visual=expert)),
    ]


def _both_ways(product: Product) -> float:
    return product.forward + product.backward


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
