"""A decoder layer: norm, attention, norm, FFN, each with visual weights where they are placed."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_mono.model.attention import Attention, Context
from lightning_mono.model.config import MonoConfig
from lightning_mono.model.experts import Experts, RMSNorm, SwiGLU


class Block(nn.Module):
    """x + attention(norm(x)), then x + ffn(norm(x)) (Mono-InternVL, eqs. 1 and 2)."""

    def __init__(self, config: MonoConfig, layer: int) -> None:
        super().__init__()
        decoder, experts = config.decoder, config.experts

        def norm() -> Experts:
            text = RMSNorm(decoder.hidden_size, decoder.rms_eps)
            return Experts(text, visual=layer in experts.norms)

        self.attention_norm = norm()
        self.attention = Attention(decoder, layer, visual=layer in experts.attention)
        self.ffn_norm = norm()
        ffn = SwiGLU(decoder.hidden_size, decoder.ffn_size)
        self.ffn = Experts(ffn, visual=layer in experts.ffn)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """(batch, tokens, hidden) -> the same shape."""
        x = x + self.attention(self.attention_norm(x, context.layout), context)
        return x + self.ffn(self.ffn_norm(x, context.layout), context.layout)
