"""New tokens a second behind a long prompt, greedily, in steady state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor

from lightning_mono.bench import floor, reference
from lightning_mono.bench.models import Models
from lightning_mono.bench.names import OURS, REFERENCE, TRANSFORMERS, TURN, TWIN
from lightning_mono.bench.prompts import Prompt
from lightning_mono.bench.roofline import Machine
from lightning_mono.bench.subject import Subject
from lightning_mono.bench.timing import Contestant, Sample, once
from lightning_mono.bench.twin import InTransformers
from lightning_mono.model import MonoModel

WORD = 1
"""What all are given, untimed, and then again to begin with."""

Steps = Iterator[Tensor]
"""Endless; runs a step whenever it is asked, and gives ids (batch,)."""


class Decode:
    """Each contestant goes on behind a cache of the prompt's length, filled with random numbers.

    What stands in the cache does not matter to time, and to read prompts in 16 rows would take
    most of it. The first step is not timed; its logits have to agree.
    """

    name = "decode"
    title = "New tokens a second, of all rows"
    rate = True
    memory_layers: int | None = None  # the official way holds the cache of each layer twice

    def __init__(self, subject: Subject, rounds: int) -> None:
        self.subject, self.rounds = subject, rounds
        self.models = Models(subject)

    def line_up(self, prompt: Prompt, names: Collection[str]) -> dict[str, Contestant]:
        """Those of ``names``, in our order; a turn's result is the logits of the first step."""
        starts: dict[str, Callable[[], tuple[Tensor, Steps]]] = {
            OURS: lambda: self._ours(self.models.mono, prompt),
            REFERENCE: lambda: self._official(prompt),
            TWIN: lambda: self._ours(self.models.twin, prompt),
            TRANSFORMERS: lambda: self._elsewhere(self.models.elsewhere, prompt),
        }
        return {name: _turns(*start()) for name, start in starts.items() if name in names}

    def seconds(self, sample: Sample) -> float:
        return sample.forward / TURN

    def tokens(self, prompt: Prompt) -> int:
        return prompt.batch

    def floors(self, prompt: Prompt, machine: Machine) -> dict[str, float]:
        """Seconds of a step: weights and cache read once, or the products, whichever is more."""
        model = self.models.mono
        products = floor.step_operations(model, prompt.batch, prompt.tokens) / machine.flops
        moved = floor.step_bytes(model, prompt.batch, prompt.tokens)
        return {
            "reads": max(moved / machine.reads, products),
            "mv reads": max(moved / machine.vector, products),
        }

    def outcome(self, result: Tensor) -> Tensor:
        return result

    def weights(self, name: str) -> int:
        return self.models.weights(name)

    def _ours(self, model: MonoModel, prompt: Prompt) -> tuple[Tensor, Steps]:
        """Our session, as if it had read the prompt."""
        session = model.session(prompt.batch)
        cache = session.cache
        cache.reserve(prompt.tokens + 1 + self._steps)
        for layer, (keys, values) in enumerate(self._cached(prompt)):
            cache.write(layer, keys, values)
        words = torch.full((prompt.batch, prompt.tokens), WORD, device=self.subject.device)
        cache.advance(torch.ones_like(words, dtype=torch.int32), words)
        session._counts += prompt.tokens
        logits = session.read(words[:, :1])
        return logits, session.stream(words[:, :1], max_new_tokens=self._steps)

    def _official(self, prompt: Prompt) -> tuple[Tensor, Steps]:
        model = self.models.mono
        cache = [(keys.contiguous(), values.contiguous()) for keys, values in self._cached(prompt)]

        @torch.inference_mode()
        def read(ids: Tensor) -> Tensor:
            nonlocal cache
            logits, cache = reference.forward(model, ids, cache=cache)
            return logits[:, -1]

        return self._greedy(read, prompt)

    def _elsewhere(self, twin: InTransformers, prompt: Prompt) -> tuple[Tensor, Steps]:
        cache = twin.cache()
        for layer, (keys, values) in enumerate(self._cached(prompt)):
            cache.update(keys.contiguous(), values.contiguous(), layer)
        return self._greedy(lambda ids: twin.read(ids, cache), prompt)

    def _greedy(self, read: Callable[[Tensor], Tensor], prompt: Prompt) -> tuple[Tensor, Steps]:
        word = torch.full((prompt.batch, 1), WORD, device=self.subject.device)

        def steps() -> Steps:
            ids = word[:, 0]
            while True:
                ids = read(ids[:, None]).argmax(-1)
                yield ids

        return read(word), steps()

    def _cached(self, prompt: Prompt) -> Iterator[tuple[Tensor, Tensor]]:
        """Keys and values of each layer, (batch, kv heads, tokens, head_dim), alike in all rows."""
        decoder = self.subject.config.decoder
        generator = torch.Generator(self.subject.device).manual_seed(0)
        for _ in range(decoder.layers):
            drawn = torch.randn(
                (2, 1, decoder.kv_heads, prompt.tokens, decoder.head_dim),
                generator=generator,
                device=self.subject.device,
            )
            keys, values = drawn.to(self.subject.dtype).expand(-1, prompt.batch, -1, -1, -1)
            yield keys, values

    @property
    def _steps(self) -> int:
        """All turns, and one more that is not counted."""
        return (self.rounds + 1) * TURN


def _turns(logits: Tensor, steps: Steps) -> Contestant:
    def turn() -> Tensor:
        for _ in range(TURN):
            next(steps)
        return logits

    return once(turn)
