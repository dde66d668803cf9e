"""One set of weights per modality, and the modules that differ by modality."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mono.backbones.config import DecoderConfig
from lightning_mono.kernels import Kernel, gathered
from lightning_mono.model.layout import ModalityLayout
from lightning_mono.model.linear import Linear


class Experts(nn.Module):
    """Text weights with, where placed, visual weights beside them (MMoE, Mono-InternVL eq. 3).

    The kernel is a plain attribute, not a module: exchanging it changes no parameter's name.
    """

    kernel: Kernel

    def __init__(self, text: nn.Module, *, visual: bool) -> None:
        super().__init__()
        self.text = text
        self.visual = copy.deepcopy(text) if visual else None
        self.kernel = gathered

    def copy_from_text(self) -> None:
        """Makes the visual weights equal to the text weights, as they are before they learn."""
        if self.visual is not None:
            self.visual.load_state_dict(self.text.state_dict())

    def forward(self, x: Tensor, layout: ModalityLayout) -> Tensor:
        """(batch, tokens, width in) -> (batch, tokens, width out)."""
        if self.visual is None:
            return self.text(x)
        y = self.kernel(x.reshape(-1, x.shape[-1]), layout, self.text, self.visual)
        return y.view(*x.shape[:-1], y.shape[-1])

    def part(self, name: str, x: Tensor, layout: ModalityLayout) -> Tensor:
        """What one method of the blocks makes of rows, where all of a block is not needed."""
        if self.visual is None:
            return getattr(self.text, name)(x)
        parts = Part(self.text, name), Part(self.visual, name)
        y = self.kernel(x.reshape(-1, x.shape[-1]), layout, *parts)
        return y.view(*x.shape[:-1], y.shape[-1])

    def after(self, norm: Experts, x: Tensor, layout: ModalityLayout) -> Tensor:
        """The experts of rows that are normed first: in one step, where the kernel has one."""
        normed = getattr(self.kernel, "normed", None)
        if normed is not None and self.visual is not None:
            norms = norm.text, norm.visual or norm.text
            y = normed(x.reshape(-1, x.shape[-1]), layout, self.text, self.visual, norms)
            if y is not None:
                return y.view(*x.shape[:-1], y.shape[-1])
        return self(norm(x, layout), layout)


class Part(nn.Module):
    """One method of a block, as a block of its own with the same weights."""

    def __init__(self, block: nn.Module, name: str) -> None:
        super().__init__()
        self.block = block
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self.block, self.name)(x)


class RMSNorm(nn.Module):
    """x / rms(x) * weight, with the mean square taken in fp32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        return (F.rms_norm(wide, (x.shape[-1],), eps=self.eps)).to(x.dtype) * self.weight


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), without biases."""

    def __init__(self, hidden_size: int, ffn_size: int) -> None:
        super().__init__()
        self.gate = Linear(hidden_size, ffn_size, bias=False)
        self.up = Linear(hidden_size, ffn_size, bias=False)
        self.down = Linear(ffn_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(silu_times(self.gate(x), self.up(x)))


def silu_times(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up. Where no gradient is asked for, ``gate`` is overwritten with it."""
    if not torch.is_grad_enabled():
        return F.silu(gate, inplace=True).mul_(up)
    return _SiluTimes.apply(gate, up)


class _SiluTimes(torch.autograd.Function):
    """Keeps its inputs and nothing else; composed of two products, silu(gate) would be kept too."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        (grad,) = grads
        to_up = F.silu(gate).mul_(grad)
        to_gate = torch.ops.aten.silu_backward(grad * up, gate)
        return to_gate, to_up


class QKV(nn.Module):
    """Query, key and value projections side by side: (rows, hidden) -> (rows, q + k + v).

    Where the family norms every query and key head (Qwen3), that is a part of the projection, so
    an attention expert has norms of its own.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        hidden, self.head_dim = config.hidden_size, config.head_dim
        q_size, kv_size = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q = Linear(hidden, q_size, bias=config.qkv_bias)
        self.k = Linear(hidden, kv_size, bias=config.qkv_bias)
        self.v = Linear(hidden, kv_size, bias=config.qkv_bias)
        self.q_norm = RMSNorm(config.head_dim, config.rms_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.rms_eps) if config.qk_norm else None

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.queries(x), self.keys(x), self.v(x)], dim=-1)

    def queries(self, x: Tensor) -> Tensor:
        """(rows, hidden) -> (rows, q)."""
        return self._normed(self.q(x), self.q_norm)

    def keys(self, x: Tensor) -> Tensor:
        """(rows, hidden) -> (rows, k)."""
        return self._normed(self.k(x), self.k_norm)

    def keys_values(self, x: Tensor) -> Tensor:
        """(rows, hidden) -> (rows, k + v)."""
        return torch.cat([self.keys(x), self.v(x)], dim=-1)

    def _normed(self, x: Tensor, norm: RMSNorm | None) -> Tensor:
        """Norms each head of (..., heads * head_dim)."""
        return x if norm is None else norm(x.unflatten(-1, (-1, self.head_dim))).flatten(-2)
