"""The most memory that a step of a stage takes on one device, and what takes it.

A step is followed through the moments at which memory is highest:

    loss               the forward pass is at its end: all activations, three tensors as large as
                       the logits that exist at a time in fp32, and the head's gradient
    layer n gradient   gradients of the layers above n are there, activations up to n are; those of
                       one layer's own activations are being made
    vision gradient    gradients of the decoder are there, and the way back goes through a vision
                       transformer, where there is one that learns
    update             all gradients, and what the optimizer makes on its way

Where a step is computed in parts, the gradients of the parts before are there at every moment.
Moments count from the stage's second step on. Under autocast what trains has a copy in bf16 until
the step ends, and what is frozen until its backward pass. Between the devices

    mono_ddp    weights, gradients and moments on each, and buckets of as many bytes as gradients
    mono_fsdp2  a share of each; a layer is put together while it runs, with the one after it, and
                what is outside the layers for the whole step

Not counted: what stands beside the model (:data:`APART`), fragmentation, compiled kernels, and on
a GPU the host's memory for data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal

from lightning_mono.model import MonoConfig
from lightning_mono.plan import activations
from lightning_mono.plan.flow import Flow, LayerFlow, is_last
from lightning_mono.plan.microbatch import MicroBatch
from lightning_mono.plan.numeric import Numeric
from lightning_mono.plan.weights import Weight

APART = 2**30
"""Bytes that no tensor takes, about 1 GiB: on a GPU a CUDA context, its libraries and their
workspaces; on a CPU the process with its libraries, tokenizer and data."""

NF4_BLOCK = 64
MOMENT_BLOCK = 256
SMALL = 4096
"""bitsandbytes keeps the moments of tensors below this many numbers in fp32."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at one moment.

    Attributes:
        weights: parameters as they are kept.
        casts: their copies in bf16 that products are made of.
        gradients: of what trains; with mono_ddp its buckets too.
        optimizer: moments, and averages of the weights.
        activations: what the forward pass has kept, and the batch.
        logits: at the supervised positions, and what becomes of them.
        workspace: what comes and goes.
    """

    weights: float
    casts: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    workspace: float

    @property
    def total(self) -> float:
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class Setup:
    """How a stage is executed, as far as memory goes.

    Attributes:
        strategy: mono_single, mono_ddp or mono_fsdp2.
        devices: that share the work.
        numeric: bytes a number.
        optimizer: adamw or adamw8bit.
        quantize: none, nf4 or int8.
        checkpointing: whether layers are computed again on the way back.
        accumulate: micro-batches of a step.
        device: of which kind. CUDA steps on all tensors of a group at once, and has the triton
            kernel.
        kernel: that FFN experts run in.
        averaged: parameter groups that have an average (``trainer.ema``).
    """

    strategy: str
    devices: int
    numeric: Numeric
    optimizer: str
    quantize: str
    checkpointing: bool
    accumulate: int
    device: Literal["cpu", "cuda"]
    kernel: str
    averaged: frozenset[str] = frozenset()

    @property
    def fused(self) -> bool:
        return self.kernel.startswith("triton")


@dataclass(frozen=True)
class Step:
    """One step of a stage on one device."""

    config: MonoConfig
    weights: tuple[Weight, ...]
    flow: Flow
    batch: MicroBatch
    setup: Setup

    def peak(self) -> tuple[str, Memory]:
        """The moment at which memory is highest, and what takes it."""
        return max(self.moments(), key=lambda moment: moment[1].total)

    def moments(self) -> Iterator[tuple[str, Memory]]:
        """The moments at which memory may be highest, in order."""
        kept = self._kept
        logits = activations.chunk_bytes(self.config, self.batch)
        rows = activations.loss_bytes(self.config, self.flow, self.batch, self.setup.numeric)
        outside = rows + self._outside + self._patchifier
        inputs = activations.input_bytes(self.config, self.batch)
        if self.setup.device == "cpu":  # holds the whole batch, and the next one
            inputs *= 2 * self.setup.accumulate
        every = self._gradients(self.weights)
        held = every if self.setup.accumulate > 1 else 0.0
        alive = inputs + sum(kept) + outside
        last = len(kept) - 1
        yield "loss", self._at(held or self._of_head, alive, logits * 3, down_to=last)
        for layer in reversed(range(len(kept))):
            made = held or self._made(layer)
            alive = inputs + sum(kept[:layer]) + self._layer(layer) + self._patchifier
            workspace = self._workspace(layer)
            yield (
                f"layer {layer} gradient",
                self._at(made, alive, 0.0, workspace, down_to=layer, now=layer),
            )
        if self.flow.tower:
            alive = inputs + self._patchifier + self.setup.checkpointing * self._vit_layer
            made = held or self._made(-1)
            yield "vision gradient", self._at(made, alive, 0.0, self._vit_workspace)
        yield "update", self._at(every, inputs, 0.0, self._stepping)

    # -- one moment -------------------------------------------------------------------------

    def _at(
        self,
        gradients: float,
        kept: float,
        logits: float,
        workspace: float = 0.0,
        *,
        down_to: int = -1,
        now: int | None = None,
    ) -> Memory:
        """Adds up what is always there.

        Args:
            down_to: layers up to this one have still to be gone through backward.
            now: the one that is being.
        """
        return Memory(
            weights=self._stored,
            casts=self._casts(down_to, now),
            gradients=gradients + self._buckets,
            optimizer=self._moments,
            activations=kept,
            logits=logits,
            workspace=workspace + self._gathered,
        )

    @cached_property
    def _kept(self) -> list[float]:
        """Bytes that each layer keeps."""
        if not self.setup.checkpointing:
            return [self._layer(layer) for layer in range(len(self.flow.layers))]
        stream = activations.stream_bytes(self.config, self.batch, self.setup.numeric)
        return [stream * bool(self._layer(n)) for n in range(len(self.flow.layers))]

    def _layer(self, layer: int) -> float:
        return activations.layer_bytes(
            self.config,
            self.flow,
            self.batch,
            layer,
            self.setup.numeric,
            kernel=self.setup.kernel,
        )

    @cached_property
    def _outside(self) -> float:
        return activations.outside_bytes(self.config, self.flow, self.batch, self.setup.numeric)

    @cached_property
    def _patchifier(self) -> float:
        return activations.patchifier_bytes(
            self.config,
            self.flow,
            self.batch,
            self.setup.numeric,
            checkpointing=self.setup.checkpointing,
        )

    @property
    def _vit_layer(self) -> float:
        return activations.vit_layer_bytes(self.config, self.batch, self.setup.numeric)

    @property
    def _vit_workspace(self) -> float:
        """Gradients of one layer's activations: those of its MLP, or of its attention."""
        section, numeric = self.config.patchifier, self.setup.numeric
        assert section is not None
        assert section.vit is not None
        inner = max(2 * section.vit.mlp_size(section.width), 4 * section.width) * numeric.product
        row = inner + 2 * section.width * numeric.weight
        return activations.vit_tokens(section, self.batch) * row

    def _workspace(self, layer: int) -> float:
        """Gradients of one layer's activations: those of its FFN, or of its attention."""
        decoder, batch, numeric = self.config.decoder, self.batch, self.setup.numeric
        q, kv = decoder.heads * decoder.head_dim, decoder.kv_heads * decoder.head_dim
        apart = layer in self.config.experts.ffn and not self.setup.fused
        end = is_last(self.flow, layer)
        sides = (batch.of(visual=visual, end=end) for visual in (False, True))
        tokens = max(sides) if apart else batch.all(end=end)
        ffn = 3 * tokens * decoder.ffn_size * numeric.product
        attention = batch.tokens * (3 * q + 4 * kv) * numeric.product
        stream = 2 * batch.tokens * decoder.hidden_size * numeric.weight
        expanded = self.setup.quantize != "none"
        rounded = max((w.numbers for w in self.weights if w.rounded), default=0) * expanded
        return max(ffn, attention) + stream + 2 * rounded * numeric.product

    # -- weights ----------------------------------------------------------------------------

    @property
    def _shares(self) -> int:
        return self.setup.devices if self.setup.strategy == "mono_fsdp2" else 1

    @cached_property
    def _trained(self) -> tuple[Weight, ...]:
        return tuple(w for w in self.weights if w.group in self.flow.train)

    @cached_property
    def _stored(self) -> float:
        return sum(stored_bytes(w, self.setup) for w in self.weights) / self._shares

    @cached_property
    def _moments(self) -> float:
        moments = sum(moment_bytes(w, self.setup) for w in self._trained)
        averaged = sum(w.numbers for w in self.weights if w.group in self.setup.averaged)
        return (moments + averaged * max(4, self.setup.numeric.weight)) / self._shares

    @cached_property
    def _gathered(self) -> float:
        """What FSDP2 has put together: the outermost unit, and the two largest layers' worth."""
        if self._shares == 1:
            return 0.0
        whole = sum(stored_bytes(w, self.setup) for w in self.weights if w.unit is None)
        layers: dict[str, float] = {}
        for weight in self.weights:
            if weight.unit is not None:
                size = stored_bytes(weight, self.setup)
                # Its gradient, too, before it is shared.
                size += size * (weight.group in self.flow.train)
                layers[weight.unit] = layers.get(weight.unit, 0) + size
        outside = (w for w in self._trained if w.unit is None)
        whole += sum(w.numbers * self.setup.numeric.weight for w in outside)
        return whole + sum(sorted(layers.values())[-2:])

    def _gradients(self, weights: Iterable[Weight]) -> float:
        trained = (w for w in weights if w.group in self.flow.train)
        return sum(w.numbers for w in trained) * self.setup.numeric.weight / self._shares

    @cached_property
    def _buckets(self) -> float:
        return self._gradients(self.weights) if self.setup.strategy == "mono_ddp" else 0.0

    def _made(self, layer: int) -> float:
        """Gradients that are there when a layer's turn has come."""
        above = [w for w in self.weights if w.layer is not None and w.layer > layer]
        return self._gradients(above) + self._of_head

    @cached_property
    def _of_head(self) -> float:
        """Gradients of the head and of the norm before it."""
        head = [w for w in self.weights if w.name.startswith(("head", "norm."))]
        if self.config.decoder.tied:
            head += [w for w in self.weights if w.name.startswith("embed")]
        return self._gradients(head)

    @cached_property
    def _stepping(self) -> float:
        """What AdamW makes on its way: a root for each number of a group, or of two tensors."""
        if self.setup.optimizer != "adamw" or not self._trained:
            return 0.0
        numbers: dict[str, int] = {}
        for weight in self._trained:
            key = weight.group if self.setup.device == "cuda" else weight.name
            numbers[key] = numbers.get(key, 0) + weight.numbers
        times = 1 if self.setup.device == "cuda" else 2
        return times * max(numbers.values()) * self.setup.numeric.weight / self._shares

    def _casts(self, down_to: int, now: int | None) -> float:
        """Copies in bf16, under autocast.

        Those of what trains are cached until the step ends. Those of what is frozen are kept for
        the gradient of what they were multiplied with; with checkpointing, of one layer at a time.
        """
        if not self.setup.numeric.cast:
            return 0.0
        total = 0.0
        for weight in self.weights:
            if not multiplies(weight, self.config) or self._cast_on_chip(weight):
                continue
            ahead = weight.layer is None and now is None and down_to >= 0
            ahead |= weight.layer is not None and weight.layer <= down_to
            if self.setup.checkpointing and weight.layer is not None:
                ahead &= weight.layer == now
            waits = ahead and gradient_passes(weight, self.flow)
            if waits or weight.group in self.flow.train:
                total += weight.numbers * self.setup.numeric.product
        return total

    def _cast_on_chip(self, weight: Weight) -> bool:
        rounded = self.setup.quantize != "none" and weight.rounded
        in_expert = ".ffn." in weight.name and weight.layer in self.config.experts.ffn
        return rounded or (self.setup.fused and in_expert)


def multiplies(weight: Weight, config: MonoConfig) -> bool:
    """Whether rows are multiplied with it: a table of embeddings only where it is the head."""
    return weight.multiplied and (weight.group != "embeddings" or config.decoder.tied)


def gradient_passes(weight: Weight, flow: Flow) -> bool:
    """Whether what a matrix is multiplied with needs a gradient."""
    if weight.layer is None:
        return flow.vision if weight.name.startswith("patchifier.") else flow.last
    needs: LayerFlow = flow.layers[weight.layer]
    if ".qkv." in weight.name:
        return needs.normed
    if ".out." in weight.name:
        return needs.heads
    return needs.normed_middle or (".down." in weight.name and weight.group in flow.train)


def stored_bytes(weight: Weight, setup: Setup) -> float:
    """What a parameter takes: nf4 half a byte a number and a scale for 64, int8 a scale a row."""
    if weight.rounded and setup.quantize == "nf4":
        return weight.numbers / 2 + 4 * math.ceil(weight.numbers / NF4_BLOCK)
    if weight.rounded and setup.quantize == "int8":
        return weight.numbers + 4 * weight.shape[0]
    return weight.numbers * setup.numeric.weight


def moment_bytes(weight: Weight, setup: Setup) -> float:
    """Both moments of AdamW: as the parameter is, or one byte a number and a scale for 256."""
    if setup.optimizer == "adamw8bit":
        if weight.numbers < SMALL:
            return 2 * 4 * weight.numbers
        return 2 * (weight.numbers + 4 * math.ceil(weight.numbers / MOMENT_BLOCK))
    return 2 * weight.numbers * setup.numeric.weight
