"""The least time an FFN can take: operations and bytes counted, over what the machine reaches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch

from lightning_mono.bench.cases import Case
from lightning_mono.bench.timing import clock_of
from lightning_mono.model.linear import linear


@dataclass(frozen=True)
class Work:
    """What a pass must do: floating-point operations, and bytes to and from memory."""

    flops: int
    bytes: int


@dataclass(frozen=True)
class Machine:
    """What the machine reaches: the best of several large products, copies and sums.

    Attributes:
        flops: of a square matrix product, a second.
        bytes: read and written by a copy, a second.
        reads: bytes read by a sum over all of a tensor, a second.
        vector: bytes read by a product of a matrix with a vector, a second.
    """

    flops: float
    bytes: float
    reads: float
    vector: float

    def floor(self, work: Work) -> float:
        """Seconds that ``work`` takes at the very least (Williams et al., 2009)."""
        return max(work.flops / self.flops, work.bytes / self.bytes)


def forward(case: Case, item: int) -> Work:
    """The forward pass in two products, gate and up with SwiGLU at their end, then down.

    Every tensor crosses memory once for each product that makes or uses it. Gate, up and their
    product are written, for backward, and the last is read again by down.

    Args:
        item: bytes of a number.
    """
    n, h, f = case.tokens, case.shape.hidden, case.shape.ffn
    numbers = 2 * n * h + 3 * n * f + n * f + _weights(case)
    return Work(flops=3 * 2 * n * h * f, bytes=numbers * item)


def backward(case: Case, item: int) -> Work:
    """The backward pass with frozen text weights: the input's gradient, and visual weights'.

    Down's transpose makes the gradients of gate and up, from which a second product makes the
    input's; three more make the gradients of the weights from the visual rows.
    """
    n, v, h, f = case.tokens, case.visual, case.shape.hidden, case.shape.ffn
    inputs = 2 * n * h + (2 * n * f) + (2 * n * f + 2 * n * f) + _weights(case)
    weights = 2 * v * h + 3 * v * f + 3 * h * f if v else 0
    return Work(flops=3 * 2 * (n + v) * h * f, bytes=(inputs + weights) * item)


def _weights(case: Case) -> int:
    """Numbers in the weights of the modalities that are present."""
    present = (case.visual > 0) + (case.text > 0)
    return present * 3 * case.shape.hidden * case.shape.ffn


class Gauge:
    """Measures a machine again and again during a run, and keeps the best.

    The product is of 2,048 (on a GPU 8,192) rows, columns and terms, by whatever computes the
    model's; copied, summed and multiplied
    with a vector are 128 MiB (on a GPU 1 GiB), which no cache holds.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        on_gpu = device.type == "cuda"
        self.side = 8192 if on_gpu else 2048
        count = (2**30 if on_gpu else 2**27) // dtype.itemsize
        self.clock = clock_of(device)
        self.left, self.right = torch.randn(2, self.side, self.side, device=device).to(dtype)
        self.source, self.target = torch.zeros(2, count, dtype=dtype, device=device)
        self._seconds: list[list[float]] = []

    def measure(self) -> None:
        """Three of each, after one that only warms up."""
        matrix = self.source.view(-1, self.side)
        vector = matrix[0].clone()
        works: tuple[Callable[[], object], ...] = (
            lambda: linear(self.left, self.right),
            lambda: self.target.copy_(self.source),
            lambda: self.source.sum(),
            lambda: matrix @ vector,
        )
        for number in range(4):
            marks = [self.clock.mark()]
            for work in works:
                work()
                marks.append(self.clock.mark())
            if number:
                self._seconds.append([self.clock.seconds(*pair) for pair in pairwise(marks)])

    @property
    def machine(self) -> Machine:
        """The best so far."""
        product, copy, total, vector = (min(column) for column in zip(*self._seconds, strict=True))
        size = self.source.numel() * self.source.itemsize
        return Machine(2 * self.side**3 / product, 2 * size / copy, size / total, size / vector)
