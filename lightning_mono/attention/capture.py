"""Attention weights on request: of chosen layers, heads and query rows, as a model reads.

A model computes its attention by a fused path that never has the weights. What is captured is
computed beside it, from the same queries and keys, so that logits are the same to the last bit
whether anything is captured or not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_mono.backbones.config import DecoderConfig
from lightning_mono.model.attention import BLOCK, Watch, attention_weights


class Capture:
    """Keeps softmax weights of chosen layers, heads and rows; hand it on as ``watch``.

    ``MonoModel.hidden(batch, watch=capture)`` captures a batch, packed or padded. With
    ``session.watch = capture`` rows go on from chunk to chunk: those of a prompt come first, and
    each new token that is read adds one.

    Args:
        config: of the model's decoder.
        layers: from 0; by default all.
        heads: from 0, kept in this order; by default all.
        rows: columns of the queries, from 0, all chunks counted; by default all.
        mean: keep the average over the heads alone, as one head.

    Raises:
        ValueError: the model has no such layer or head.
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        rows: Sequence[int] | None = None,
        mean: bool = False,
    ) -> None:
        self.layers = _known("layer", layers, config.layers)
        self.heads = _known("head", heads, config.heads)
        self._rows = None if rows is None else torch.tensor(sorted(set(rows)), dtype=torch.int64)
        self._mean = mean
        self._pieces: dict[int, list[Tensor]] = {layer: [] for layer in self.layers}
        self._found: dict[int, list[Tensor]] = {layer: [] for layer in self.layers}

    def __call__(self, layer: int, q: Tensor, k: Tensor, mask: Tensor | None) -> None:
        if layer not in self._pieces:
            return
        offset = k.shape[2] - q.shape[2]
        rows = torch.arange(offset, k.shape[2]) if self._rows is None else self._rows
        rows = rows[(rows >= offset) & (rows < k.shape[2])]
        if not len(rows):
            return
        here = (rows - offset).to(q.device)
        with torch.no_grad():
            if self._mean:
                weights = head_mean(q, k, mask, here, self.heads)
            else:
                weights = attention_weights(q, k, mask, here, self.heads)
        self._pieces[layer].append(weights.cpu())
        self._found[layer].append(rows)

    def rows(self, layer: int) -> Tensor:
        """Columns of the queries that were captured, ascending, (rows,) int64."""
        found = self._found[layer]
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64)

    def weights(self, layer: int) -> Tensor:
        """Weights of a layer, (batch, heads, rows, keys) fp32 on the CPU.

        Keys are all columns that the last captured row's chunk could see; those that came after a
        row are 0 in it. Each row sums to 1.

        Raises:
            KeyError: the layer was not asked for.
            ValueError: nothing was captured.
        """
        pieces = self._pieces[layer]
        if not pieces:
            raise ValueError(f"layer {layer}: none of the rows asked for was read")
        if len(pieces) == 1:
            return pieces[0]
        keys = pieces[-1].shape[-1]
        padded = [torch.nn.functional.pad(piece, (0, keys - piece.shape[-1])) for piece in pieces]
        return torch.cat(padded, dim=2)


def head_mean(
    q: Tensor, k: Tensor, mask: Tensor | None, rows: Tensor, heads: Sequence[int] | None = None
) -> Tensor:
    """Weights averaged over heads, (batch, 1, rows, keys) fp32; never all heads at once.

    Args:
        q, k, mask, rows, heads: as in :func:`attention_weights`.
    """
    mean = torch.empty(q.shape[0], 1, len(rows), k.shape[2], device=q.device)
    at = 0
    for some in row_blocks(rows, q, k):
        block = attention_weights(q, k, mask, some, heads)
        mean[:, :, at : at + len(some)] = block.mean(1, keepdim=True)
        at += len(some)
    return mean


def row_blocks(rows: Tensor, q: Tensor, k: Tensor) -> Sequence[Tensor]:
    """Rows in parts whose weights, all heads together, are some ``BLOCK`` numbers."""
    return rows.split(max(BLOCK // (q.shape[0] * q.shape[1] * k.shape[2]), 1))


def both(*watches: Watch) -> Watch:
    """Shows a pass to several at once."""

    def show(layer: int, q: Tensor, k: Tensor, mask: Tensor | None) -> None:
        for watch in watches:
            watch(layer, q, k, mask)

    return show


def _known(what: str, chosen: Sequence[int] | None, count: int) -> list[int]:
    numbers = list(range(count)) if chosen is None else list(dict.fromkeys(chosen))
    outside = [number for number in numbers if not 0 <= number < count]
    if outside:
        raise ValueError(f"{what} {outside[0]} does not exist: the model has 0 to {count - 1}")
    return numbers
