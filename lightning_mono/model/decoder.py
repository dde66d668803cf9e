"""A decoder layer: norm, attention, norm, FFN, each with visual weights where they are placed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_mono.model.attention import Attention, Context
from lightning_mono.model.config import MonoConfig
from lightning_mono.model.experts import Experts, RMSNorm, SwiGLU
from lightning_mono.model.vit import VitLayer
from lightning_mono.model.wanted import Wanted


class Block(nn.Module):
    """x + attention(norm(x)), then x + ffn(norm(x)) (Mono-InternVL, eqs. 1 and 2).

    Attributes:
        recomputed: keep nothing but the input for the way back, and compute the rest again there
            (activation checkpointing): the same numbers, less memory, a third more work.
    """

    def __init__(self, config: MonoConfig, layer: int) -> None:
        super().__init__()
        self.recomputed = False
        decoder, experts = config.decoder, config.experts

        def norm() -> Experts:
            text = RMSNorm(decoder.hidden_size, decoder.rms_eps)
            return Experts(text, visual=layer in experts.norms)

        self.attention_norm = norm()
        self.attention = Attention(decoder, layer, visual=layer in experts.attention)
        self.ffn_norm = norm()
        ffn = SwiGLU(decoder.hidden_size, decoder.ffn_size)
        self.ffn = Experts(ffn, visual=layer in experts.ffn)

    def forward(self, x: Tensor, context: Context, wanted: Wanted | None = None) -> Tensor:
        """(batch, tokens, hidden) -> the same shape, or (1, n, hidden) of n wanted positions."""
        # What fills a cache or is watched on the way would be so twice.
        once = context.cache is not None or context.watch is not None
        if self.recomputed and torch.is_grad_enabled() and not once:
            return checkpoint(
                self._layer, x, context, wanted, use_reentrant=False, preserve_rng_state=False
            )
        return self._layer(x, context, wanted)

    def _layer(self, x: Tensor, context: Context, wanted: Wanted | None) -> Tensor:
        attended = self.attention(x, context, self.attention_norm, wanted)
        layout = context.layout
        if wanted is not None:
            x, layout = wanted.take(x), wanted.layout
        x = x + attended
        return x + self.ffn(self.ffn_norm(x, layout), layout)


def recompute_layers(model: nn.Module, on: bool) -> None:
    """Has every layer of a model compute its inner values again on the way back, or keep them."""
    for module in model.modules():
        if isinstance(module, Block | VitLayer):
            module.recomputed = on
