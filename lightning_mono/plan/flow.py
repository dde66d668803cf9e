"""Where gradients flow in a stage: what trains decides what the backward pass has to compute.

A tensor needs a gradient if something before it trains. In S1.1 of Mono-InternVL patchifier and FFN
experts train: every activation of every frozen layer needs a gradient, down to the image tokens,
though no frozen weight gets one. Where the lowest trained weight is in layer *n*, the layers below
it keep nothing and have no backward pass.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from lightning_mono.model import MonoConfig
from lightning_mono.params import ALIASES


@dataclass(frozen=True)
class LayerFlow:
    """Which tensors of a layer need a gradient.

    Attributes:
        stream: the residual stream that enters.
        normed: what attention reads.
        heads: queries, keys, values, and what attention mixes of them.
        middle: the residual stream between attention and FFN.
        normed_middle: what the FFN reads.
    """

    stream: bool
    normed: bool
    heads: bool
    middle: bool
    normed_middle: bool


@dataclass(frozen=True)
class Flow:
    """Which tensors of a model need a gradient in a stage.

    Attributes:
        train: parameter groups that learn.
        layers: the decoder's layers in order.
        last: whether the residual stream behind the last layer needs one.
    """

    train: frozenset[str]
    layers: tuple[LayerFlow, ...]
    last: bool

    def trains(self, kind: str, *, visual: bool) -> bool:
        """Whether a layer's text or visual weights of a kind (ffn, attention, norms) learn."""
        return (f"experts.{kind}" if visual else kind) in self.train

    @property
    def vision(self) -> bool:
        """Whether the patchifier or a part of it learns, so that visual tokens need a gradient."""
        return not self.train.isdisjoint(ALIASES["patchifier"])

    @property
    def tower(self) -> bool:
        """Whether the vision transformer learns: all of it, or nothing."""
        return "patchifier.vit" in self.train

    @property
    def projector(self) -> bool:
        """Whether what writes to the decoder learns."""
        return not self.train.isdisjoint(("patchifier", "patchifier.projector"))


def is_last(flow: Flow, layer: int) -> bool:
    """Whether only positions that predict need what a layer gives."""
    return layer == len(flow.layers) - 1


def flow_of(config: MonoConfig, train: Collection[str]) -> Flow:
    """Follows the need for gradients through a model, as autograd does."""
    groups = frozenset(train)
    eyes = config.patchifier is not None and not groups.isdisjoint(ALIASES["patchifier"])
    stream = "embeddings" in groups or eyes
    layers = []
    for layer in range(config.decoder.layers):

        def learns(kind: str, layer: int = layer) -> bool:
            visual = layer in getattr(config.experts, kind)
            return kind in groups or (visual and f"experts.{kind}" in groups)

        normed = stream or learns("norms")
        heads = normed or learns("attention")
        middle = stream or heads
        normed_middle = middle or learns("norms")
        layers.append(LayerFlow(stream, normed, heads, middle, normed_middle))
        stream = normed_middle or learns("ffn")
    return Flow(groups, tuple(layers), stream)
