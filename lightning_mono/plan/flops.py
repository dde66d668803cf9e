"""Operations of a step, counted from the products that it consists of.

A product y = x W^T of n rows takes 2 n |W| operations, a multiplication and an addition for each
number of W. The backward pass takes as many again for the gradient of x, where x needs one, and
for that of W, where W trains:

    operations = 2 n |W| (1 + [x needs a gradient] + [W trains])

A token meets the weights of its own modality and no others, so an expert adds parameters and no
operations. The head runs at supervised positions only, and so do the output projection and the FFN
of the last layer. Attention multiplies queries with keys and weights with values, over all pairs of
a row of T tokens, or, on a CPU, of a document, each time 2 T^2 (heads x head_dim); on the way back
there are four such products. The causal half is not taken off, as usual (PaLM, appendix B;
``torch.utils.flop_counter``). Norms, rotations, activations and the optimizer are not counted: they
take time, but memory's.

With activation checkpointing the layers' forward pass is computed once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lightning_mono.model import MonoConfig
from lightning_mono.plan.flow import Flow, is_last
from lightning_mono.plan.microbatch import MicroBatch


@dataclass(frozen=True)
class Product:
    """y = x W^T.

    Attributes:
        rows: of x.
        size: numbers in W.
        input_grad: whether x needs a gradient.
        weight_grad: whether W trains.
    """

    rows: float
    size: float
    input_grad: bool
    weight_grad: bool

    @property
    def forward(self) -> float:
        return 2 * self.rows * self.size

    @property
    def backward(self) -> float:
        return self.forward * (self.input_grad + self.weight_grad)


@dataclass(frozen=True)
class Flops:
    """Floating-point operations.

    Attributes:
        forward: of the forward pass.
        backward: of the backward pass.
        recompute: of what is computed once more for the backward pass.
    """

    forward: float
    backward: float
    recompute: float = 0.0

    @property
    def total(self) -> float:
        return self.forward + self.backward + self.recompute

    def __mul__(self, times: float) -> Flops:
        return Flops(self.forward * times, self.backward * times, self.recompute * times)


def count(config: MonoConfig, flow: Flow, batch: MicroBatch, *, checkpointing: bool) -> Flops:
    """Operations of one micro-batch on one device."""
    outside = [*_patchifier(config, flow, batch), _head(config, flow, batch)]
    tower = _tower(config, flow, batch)
    forward = sum(p.forward for p in outside) + tower.forward
    backward = sum(p.backward for p in outside) + tower.backward
    recompute = tower.forward if checkpointing and flow.tower else 0.0
    for layer, needs in enumerate(flow.layers):
        products = [*_attention(config, flow, batch, layer), *_ffn(config, flow, batch, layer)]
        mixing = 4 * batch.attended * config.decoder.heads * config.decoder.head_dim
        ahead = sum(p.forward for p in products) + mixing
        back = sum(p.backward for p in products) + 2 * mixing * needs.heads
        forward, backward = forward + ahead, backward + back
        recompute += ahead if checkpointing and back else 0
    return Flops(forward, backward, recompute)


def _attention(config: MonoConfig, flow: Flow, batch: MicroBatch, layer: int) -> Iterator[Product]:
    """Query, key and value projections, and the output projection."""
    decoder, needs = config.decoder, flow.layers[layer]
    q, kv = decoder.heads * decoder.head_dim, decoder.kv_heads * decoder.head_dim
    for rows, trains in _sides(config, flow, batch, layer, "attention"):
        yield Product(rows, decoder.hidden_size * (q + 2 * kv), needs.normed, trains)
    for rows, trains in _sides(config, flow, batch, layer, "attention", end=is_last(flow, layer)):
        yield Product(rows, decoder.hidden_size * q, needs.heads, trains)


def _ffn(config: MonoConfig, flow: Flow, batch: MicroBatch, layer: int) -> Iterator[Product]:
    """Gate, up and down projections."""
    decoder, needs = config.decoder, flow.layers[layer]
    size = decoder.hidden_size * decoder.ffn_size
    for rows, trains in _sides(config, flow, batch, layer, "ffn", end=is_last(flow, layer)):
        yield Product(rows, 2 * size, needs.normed_middle, trains)
        yield Product(rows, size, needs.normed_middle or trains, trains)


def _sides(
    config: MonoConfig, flow: Flow, batch: MicroBatch, layer: int, kind: str, *, end: bool = False
) -> list[tuple[float, bool]]:
    """Rows, and whether their weights train: by modality where the layer has an expert."""
    if layer not in getattr(config.experts, kind):
        return [(batch.all(end=end), flow.trains(kind, visual=False))]
    return [(batch.of(visual=v, end=end), flow.trains(kind, visual=v)) for v in (False, True)]


def _patchifier(config: MonoConfig, flow: Flow, batch: MicroBatch) -> list[Product]:
    """All but a transformer's layers. Pixels need no gradient."""
    section = config.patchifier
    if section is None:
        return []
    hidden, merged = config.decoder.hidden_size, section.merge**2
    if section.kind == "linear":
        size = 3 * section.patch_size**2 * merged * hidden
        return [Product(batch.visual, size, False, flow.projector)]
    # What is before the shuffle: convolution, and layers where there are some.
    before = flow.tower if section.kind == "vit" else flow.projector
    return [
        Product(batch.visual * merged, 3 * section.patch_size**2 * section.width, False, before),
        Product(batch.visual, section.width * merged * hidden, flow.vision, flow.projector),
        *(
            [Product(batch.visual, hidden**2, flow.vision, flow.projector)]
            if section.kind != "two_conv"
            else []
        ),
    ]


def _tower(config: MonoConfig, flow: Flow, batch: MicroBatch) -> Flops:
    """The layers of a vision transformer, of which a tile's patches and class token are a row."""
    section = config.patchifier
    if section is None or section.vit is None:
        return Flops(0, 0)
    width, length = section.width, section.tokens_per_tile * section.merge**2 + 1
    size = 4 * width**2 + 2 * width * section.vit.mlp_size(width)
    product = Product(batch.tiles * length, size, flow.tower, flow.tower)
    mixing = 4 * batch.tiles * length**2 * width
    return Flops(
        section.vit.layers * (product.forward + mixing),
        section.vit.layers * (product.backward + 2 * mixing * flow.tower),
    )


def _head(config: MonoConfig, flow: Flow, batch: MicroBatch) -> Product:
    decoder = config.decoder
    trains = ("embeddings" if decoder.tied else "head") in flow.train
    # The final norm counts as one of the norms.
    needs = flow.last or "norms" in flow.train
    return Product(batch.targets, decoder.hidden_size * decoder.vocab_size, needs, trains)
