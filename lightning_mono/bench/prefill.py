"""The time to the first token: from ids and pixels to the logits of what comes next."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from lightning_mono.bench import floor, reference
from lightning_mono.bench.models import Models
from lightning_mono.bench.names import OURS, PLAIN, REFERENCE, TRANSFORMERS, TWIN
from lightning_mono.bench.prompts import Prompt
from lightning_mono.bench.roofline import Machine
from lightning_mono.bench.subject import Subject
from lightning_mono.bench.timing import Contestant, Sample, once
from lightning_mono.model import MonoModel
from lightning_mono.model.cache import KVCache


class Prefill:
    """Each contestant reads the prompts into a new cache, as in answering them."""

    name = "prefill"
    title = "Time to the first token"
    rate = False
    memory_layers: int | None = (
        2  # the next takes the memory of the one before; the last is not as the others
    )

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.models = Models(subject)

    def line_up(self, prompt: Prompt, names: Collection[str]) -> dict[str, Contestant]:
        """Those of ``names``, in our order; a turn's result is logits (batch, vocabulary)."""
        ids, pixels = (x.to(self.subject.device) for x in prompt.inputs(self.subject.config))
        pixels = pixels.to(self.subject.dtype)
        models = self.models
        runs: dict[str, Callable[[], Tensor]] = {
            OURS: lambda: models.mono.session(len(ids)).read(ids, pixels),
            PLAIN: lambda: plain(models.mono, ids, pixels),
            REFERENCE: lambda: official(models.mono, ids, pixels),
            TWIN: lambda: models.twin.session(len(ids)).read(ids, pixels),
            TRANSFORMERS: lambda: models.elsewhere.read(ids, models.elsewhere.cache(), pixels),
        }
        return {name: once(run) for name, run in runs.items() if name in names}

    def weights(self, name: str) -> int:
        return self.models.weights(name)

    def seconds(self, sample: Sample) -> float:
        return sample.forward

    def tokens(self, prompt: Prompt) -> int:
        """Of a turn."""
        return prompt.batch * prompt.tokens

    def floors(self, prompt: Prompt, machine: Machine) -> dict[str, float]:
        """Seconds; of the routed model."""
        work = floor.prefill(self.subject.config, prompt)
        return {"GEMM": work.every / machine.flops, "GEMM, needed": work.needed / machine.flops}

    def outcome(self, result: Tensor) -> Tensor:
        return result


@torch.inference_mode()
def plain(model: MonoModel, ids: Tensor, pixels: Tensor) -> Tensor:
    """The routed model at all positions; logits of the last, (batch, vocabulary) fp32."""
    cache = KVCache(
        model.config.decoder, *ids.shape, device=ids.device, dtype=model.embed.weight.dtype
    )
    hidden = model.hidden(model.batch(ids, pixels), cache=cache)
    return model.logits(hidden[:, -1]).float()


@torch.inference_mode()
def official(model: MonoModel, ids: Tensor, pixels: Tensor) -> Tensor:
    """The official code's way; logits of the last position, (batch, vocabulary) fp32."""
    logits, _ = reference.forward(model, ids, pixels)
    return logits[:, -1].clone()
