"""Calls with random tokens and weights, and every launch they make: to measure and to compile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from lightning_mono.kernels.fused import decode, ffn_backward, ffn_forward
from lightning_mono.kernels.fused.ffn_backward import Needs
from lightning_mono.kernels.fused.ffn_forward import Call, Weights
from lightning_mono.kernels.fused.launch import Launch
from lightning_mono.kernels.fused.linear_backward import (
    input_gradient,
    norm_gradient,
    weight_gradients,
)
from lightning_mono.kernels.fused.linear_forward import forward
from lightning_mono.kernels.fused.linear_tiles import Pair, Rows
from lightning_mono.kernels.fused.tuning import LinearTiles, Tiles, defaults
from torch import Tensor

from lightning_mono.model.quantised import BLOCK


class Example(NamedTuple):
    """Of what kind: where it is, how many tokens, and of which dtype the weights are.

    Attributes:
        tokens: of a batch; every second run of 256 is visual.
        dtype: of the products, and of the text's weights unless they are rounded.
        visual_dtype: of the visual weights.
        rounded: whether the text's weights are NF4.
        device: ``meta`` to compile only.
    """

    tokens: int = 4096
    dtype: torch.dtype = torch.bfloat16
    visual_dtype: torch.dtype = torch.bfloat16
    rounded: bool = False
    device: torch.device = torch.device("meta")

    def normal(self, *size: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(*size, device=self.device).to(dtype or self.dtype)

    def rows(self) -> Rows:
        """Row numbers of text and of visual tokens."""
        every = torch.arange(self.tokens, device=self.device)
        if every.is_meta:
            return Rows(every[: self.tokens // 2], every[self.tokens // 2 :])
        visual = every // 256 % 2 == 1
        return Rows(every[~visual], every[visual])

    def text(self, sizes: Sequence[tuple[int, int]]) -> tuple[list[Tensor], list[Tensor]]:
        """Weights of these sizes and no scales, or codes and their scales."""
        if not self.rounded:
            return [0.02 * self.normal(*size) for size in sizes], []
        counts = [out * width for out, width in sizes]
        codes = [torch.randint(256, (count // 2, 1), device=self.device) for count in counts]
        scales = [torch.full((count // BLOCK,), 0.02, device=self.device) for count in counts]
        return [code.to(torch.uint8) for code in codes], [s.view(torch.int32) for s in scales]

    def visual(self, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        return [0.02 * self.normal(*size, dtype=self.visual_dtype) for size in sizes]


def ffn_call(example: Example, hidden: int, ffn: int) -> Call:
    """An FFN of these sizes."""
    sizes, rows = ((ffn, hidden), (ffn, hidden), (hidden, ffn)), example.rows()
    text, scales = example.text(sizes)
    weights = Weights(*text), Weights(*example.visual(sizes))
    x = example.normal(example.tokens, hidden)
    return Call(x, rows.text, rows.visual, *weights, scales)


def ffn_launches(call: Call, tiles: Tiles) -> dict[str, Launch]:
    """A launch of every kernel, by the name of its tile; all plain weights train."""
    saved, unsaved = (ffn_forward.forward(call, tiles, save=save) for save in (True, False))
    text = not call.rounded
    dy, needs = torch.empty_like(call.x), Needs(True, text, text, True, True)
    backward = ffn_backward.backward
    first, inputs, _, into = backward(call, dy, saved.gate, saved.up, needs, tiles).launches
    again = backward(call, dy, unsaved.gate, unsaved.up, needs, tiles).launches[0]
    kernels = (*saved.launches, first, again, inputs, into)
    return dict(zip(Tiles._fields, kernels, strict=True))


class LinearCall(NamedTuple):
    """Projections side by side, and the gradient of their result."""

    x: Tensor
    rows: Rows
    pair: Pair
    dy: Tensor


def linear_call(
    example: Example, width: int, outs: Sequence[int], *, biased: bool = False, normed: bool = False
) -> LinearCall:
    """Projections of rows of ``width``, normed first or not, to ``outs`` columns side by side."""
    sizes = [(out, width) for out in outs]
    (text, scales), visual = example.text(sizes), example.visual(sizes)
    biases, visual_biases = (
        [example.normal(out) for out in outs] if biased else [] for _ in range(2)
    )
    norms = [example.normal(width) for _ in range(2)] if normed else []
    pair = Pair.of(text, visual, biases, visual_biases, norms, scales)
    x, dy = example.normal(example.tokens, width), example.normal(example.tokens, sum(outs))
    return LinearCall(x, example.rows(), pair, dy)


def linear_launches(call: LinearCall, tiles: LinearTiles) -> dict[str, Launch]:
    """A launch of every kernel, by the name of its tile; all plain weights train."""
    x, rows, pair, dy = call
    projected, _, inverse = forward(x, rows, pair, 1e-5, tiles.project)
    trains = (not pair.rounded, True)
    kernels = (
        *projected,
        input_gradient(dy, rows, pair, tiles.input_gradient)[0],
        weight_gradients(dy, x, inverse, rows, pair, trains, tiles.weight_gradient)[0],
    )
    return dict(zip(LinearTiles._fields, kernels, strict=True))


def every_launch(
    example: Example, hidden: int, kv: int, ffn: int, capability: int
) -> Iterator[tuple[str, Launch]]:
    """All launches of a model with default tiles, in training and in decoding, and their names.

    Args:
        kv: columns of key and value each; query has ``hidden``, as has the output.
    """
    rounded = example.rounded
    tiles = defaults(Tiles, capability, example.dtype, rounded=rounded)
    yield from ffn_launches(ffn_call(example, hidden, ffn), tiles).items()
    flat = defaults(LinearTiles, capability, example.dtype, rounded=rounded)
    outs = (hidden, kv, kv)
    for name, call in (
        ("qkv", linear_call(example, hidden, outs, biased=True)),
        ("norm + qkv", linear_call(example, hidden, outs, biased=True, normed=True)),
        ("out", linear_call(example, hidden, (hidden,))),
    ):
        for kernel, launch in linear_launches(call, flat).items():
            yield f"{name} {kernel}", launch
        if call.pair.normed:
            inverse = example.normal(example.tokens, dtype=torch.float32)
            yield f"{name} norm_gradient", norm_gradient(call.x, call.x, inverse, *call[1:3])[0]
    for rows in (1, 64):
        for name, launch in decoding_launches(example, hidden, kv, ffn, rows):
            yield f"decode {rows} {name}", launch


def decoding_launches(
    example: Example, hidden: int, kv: int, ffn: int, rows: int
) -> Iterator[tuple[str, Launch]]:
    """Launches of a block of few text rows, but for the output projection."""
    few = example._replace(tokens=rows)
    call = linear_call(few, hidden, (hidden, kv, kv), biased=True, normed=True)
    every = torch.arange(rows, device=example.device)
    projections = decode.projections(call.x, Rows(every, every[:0]), call.pair, 1e-5)[0]
    weights, scales = example.text([(ffn, hidden), (ffn, hidden), (hidden, ffn)])
    ways = decode.ffn_launches(call.x, weights, scales)[0]
    names = ("qkv share", "qkv sum", "gate_up", "down share", "down sum")
    yield from zip(names, (*projections, *ways), strict=True)
