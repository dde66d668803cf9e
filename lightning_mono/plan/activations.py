"""Bytes that the forward pass keeps for the backward pass.

Kept is what a gradient is computed from, and only where one is asked for. Of T tokens, with H
channels, Q = heads x head_dim, K = kv_heads x head_dim, F inner channels and c bytes a number, a
layer through which gradients flow keeps

    norms       2 T H            what they read
    attention   T (Q + 2K) + T (Q + K) + T Q
                                 q, k and v as one tensor; q and k rotated; and their mixture
    FFN         2 T F            gate and up

and where its weights train, what these are multiplied with: T H for q, k and v, T H for gate and
up, T F for down, T H for each norm. In the last layer T is, from the output projection on, how many
positions predict. Nothing of this is quadratic in the length: fused attention keeps one
number a query. A mask is: where rows of L tokens that hold several documents are not attended to
document by document, they keep L^2 numbers each in every layer, for PyTorch widens the mask to
numbers layer by layer.

Under autocast every linear layer that trains keeps a copy of its input of its own, cast down. The
``triton`` kernel keeps gate and up alone of an FFN, and its input; ``triton_recompute`` its input.
"""

from __future__ import annotations

from lightning_mono.model import MonoConfig, PatchifierConfig
from lightning_mono.objectives import next_token
from lightning_mono.plan.flow import Flow, is_last
from lightning_mono.plan.microbatch import MicroBatch
from lightning_mono.plan.numeric import Numeric

STATISTIC = 4
"""Bytes of what a norm or a softmax keeps a row: one fp32."""

PIXEL = 4
"""Bytes of a pixel's colour, which comes in fp32."""

LOGARITHM = 4
"""Bytes of a probability's logarithm: the loss is computed in fp32 under every precision."""


def layer_bytes(
    config: MonoConfig, flow: Flow, batch: MicroBatch, layer: int, numeric: Numeric, *, kernel: str
) -> float:
    """What one layer keeps.

    Args:
        kernel: that FFNs with an expert run in.
    """
    end = is_last(flow, layer)
    return (
        _norm(config, flow, batch, layer, numeric, needs=flow.layers[layer].stream)
        + _attention(config, flow, batch, layer, numeric)
        + _norm(config, flow, batch, layer, numeric, needs=flow.layers[layer].middle, end=end)
        + _ffn(config, flow, batch, layer, numeric, kernel=kernel)
    )


def stream_bytes(config: MonoConfig, batch: MicroBatch, numeric: Numeric) -> float:
    """The residual stream once: all that a checkpointed layer keeps."""
    return batch.tokens * config.decoder.hidden_size * numeric.weight


def outside_bytes(config: MonoConfig, flow: Flow, batch: MicroBatch, numeric: Numeric) -> float:
    """What the final norm keeps; the loss is counted by :func:`loss_bytes`."""
    hidden = config.decoder.hidden_size
    wide = hidden * numeric.wide + STATISTIC if flow.last else 0
    norm = wide + hidden * numeric.weight * ("norms" in flow.train)
    return batch.targets * norm


def patchifier_bytes(
    config: MonoConfig,
    flow: Flow,
    batch: MicroBatch,
    numeric: Numeric,
    *,
    checkpointing: bool = False,
) -> float:
    """What the patchifier keeps beside the pixels, of which it keeps a cast where it makes one."""
    section, n = config.patchifier, numeric
    if section is None or not flow.vision:
        return 0.0
    hidden, merged = config.decoder.hidden_size, section.width * section.merge**2
    if section.kind not in ("conv", "vit"):
        inner = {"linear": pixels(config, batch), "two_conv": 2 * batch.visual * merged}
        cast = pixels(config, batch) * (section.kind == "two_conv" and n.product != PIXEL)
        return (inner[section.kind] + cast) * n.product
    norm = merged * n.weight + 2 * STATISTIC  # LayerNorm widens nothing
    mlp = merged * n.product + 2 * hidden * n.product + hidden * n.weight
    cast = pixels(config, batch) * n.product if n.product != PIXEL else 0.0
    if section.vit is None:
        return batch.visual * (norm + mlp) + cast
    a_layer = vit_layer_bytes(config, batch, n)
    if checkpointing:
        a_layer = vit_tokens(section, batch) * section.width * n.weight
    tower = flow.tower * (section.vit.layers * a_layer + cast)
    return batch.visual * (norm + mlp) + tower


def vit_layer_bytes(config: MonoConfig, batch: MicroBatch, numeric: Numeric) -> float:
    """What a layer of a vision transformer keeps that learns.

    Of T tokens, W channels and M inner ones: what norms, projections and factors read, 2 T W each;
    q, k and v, and their mixture, 4 T W; what GELU reads and writes, 2 T M.
    """
    section, c = config.patchifier, numeric.product
    assert section is not None
    assert section.vit is not None
    width, vit = section.width, section.vit
    row = 2 * width * numeric.weight + 8 * width * c + 2 * vit.mlp_size(width) * c
    row += (4 + vit.heads) * STATISTIC
    if vit.norm == "rms_norm":
        row += 2 * width * numeric.weight + 2 * width * (numeric.wide - numeric.weight)
    if vit.qk_norm:
        widened = numeric.wide if c < numeric.wide else 0
        row += 2 * width * (widened + numeric.product + c) + 2 * STATISTIC
    return vit_tokens(section, batch) * row


def vit_tokens(section: PatchifierConfig, batch: MicroBatch) -> float:
    """Patches of all tiles, and a class token for each."""
    return batch.tiles * (section.tokens_per_tile * section.merge**2 + 1)


def loss_bytes(config: MonoConfig, flow: Flow, batch: MicroBatch, numeric: Numeric) -> float:
    """What the loss keeps: the gradient of what the head reads. The head's own is a gradient."""
    return flow.last * batch.targets * config.decoder.hidden_size * numeric.weight


def chunk_bytes(config: MonoConfig, batch: MicroBatch) -> float:
    """Logits that exist at a time, in fp32, before anything is made of them."""
    vocabulary = config.decoder.vocab_size
    return min(batch.targets, next_token.CHUNK // vocabulary) * vocabulary * LOGARITHM


def input_bytes(config: MonoConfig, batch: MicroBatch) -> float:
    """The batch on its device: pixels in fp32, ids and masks; and the tables of positions."""
    tables = 2 * 4 * config.decoder.head_dim
    ids = 8 + 8 + 4 + 4 + 1 + 8
    mask = batch.rows * batch.length**2 if batch.masked else 0
    return PIXEL * pixels(config, batch) + batch.tokens * (tables + ids) + 20 * batch.targets + mask


def pixels(config: MonoConfig, batch: MicroBatch) -> float:
    """Numbers in the tiles."""
    return batch.tiles * 3 * config.patchifier.image_size**2 if config.patchifier else 0


def _norm(
    config: MonoConfig,
    flow: Flow,
    batch: MicroBatch,
    layer: int,
    numeric: Numeric,
    *,
    needs: bool,
    end: bool = False,
) -> float:
    hidden, kept = config.decoder.hidden_size, 0.0
    if needs:
        kept += batch.all(end=end) * (hidden * numeric.wide + STATISTIC)
    for tokens, trains in _sides(config, flow, batch, layer, "norms", end=end):
        kept += trains * tokens * hidden * numeric.weight
    return kept


def _attention(
    config: MonoConfig, flow: Flow, batch: MicroBatch, layer: int, numeric: Numeric
) -> float:
    decoder, needs, c = config.decoder, flow.layers[layer], numeric.product
    q, kv = decoder.heads * decoder.head_dim, decoder.kv_heads * decoder.head_dim
    kept = 0.0
    for tokens, trains in _sides(config, flow, batch, layer, "attention"):
        kept += trains * tokens * decoder.hidden_size * c * (3 if numeric.cast else 1)
        if decoder.qk_norm and (needs.normed or trains):
            kept += tokens * (q + kv) * numeric.wide
            kept += tokens * (decoder.heads + decoder.kv_heads) * STATISTIC
            kept += trains * tokens * (q + kv) * numeric.weight
    end = is_last(flow, layer)
    for tokens, trains in _sides(config, flow, batch, layer, "attention", end=end):
        # Its rows are a tensor of their own, unless they are all of what attention gives at once.
        if layer in config.experts.attention or end or batch.split:
            kept += trains * tokens * q * c
    if needs.heads:
        kept += batch.tokens * (3 * q + 3 * kv) * c + batch.tokens * decoder.heads * STATISTIC
        if numeric.product != STATISTIC:  # tables of positions, cast for queries and for keys
            kept += 4 * batch.tokens * decoder.head_dim * c
        if batch.masked:
            kept += batch.rows * batch.length**2 * c
    return kept


def _ffn(
    config: MonoConfig,
    flow: Flow,
    batch: MicroBatch,
    layer: int,
    numeric: Numeric,
    *,
    kernel: str,
) -> float:
    decoder, needs, c = config.decoder, flow.layers[layer], numeric.product
    end = is_last(flow, layer)
    sides = _sides(config, flow, batch, layer, "ffn", end=end)
    if kernel.startswith("triton") and len(sides) == 2:
        flows = needs.normed_middle or any(trains for _, trains in sides)
        again = kernel == "triton_recompute"
        wide = 0 if again else 2 * decoder.ffn_size
        return flows * batch.all(end=end) * (decoder.hidden_size + wide) * c
    kept = 0.0
    for tokens, trains in sides:
        if needs.normed_middle or trains:
            kept += tokens * 2 * decoder.ffn_size * c
        if trains:
            copies = 2 if numeric.cast else 1
            kept += tokens * (copies * decoder.hidden_size + decoder.ffn_size) * c
    return kept


def _sides(
    config: MonoConfig, flow: Flow, batch: MicroBatch, layer: int, kind: str, *, end: bool = False
) -> list[tuple[float, bool]]:
    """Tokens, and whether their weights train: by modality where the layer has an expert."""
    if layer not in getattr(config.experts, kind):
        return [(batch.all(end=end), flow.trains(kind, visual=False))]
    return [(batch.of(visual=v, end=end), flow.trains(kind, visual=v)) for v in (False, True)]
