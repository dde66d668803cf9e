"""A training step of one stage: forward, backward, clipping, update."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property

import torch
from torch import Tensor

from lightning_mono.bench import floor, reference
from lightning_mono.bench.models import Models
from lightning_mono.bench.names import OURS, PLAIN, REFERENCE
from lightning_mono.bench.prompts import Prompt
from lightning_mono.bench.roofline import Machine
from lightning_mono.bench.subject import Subject
from lightning_mono.bench.timing import Contestant, Sample
from lightning_mono.gradients import clip, norms_by_group
from lightning_mono.model import Batch, MonoModel
from lightning_mono.module import MonoModule
from lightning_mono.objectives import next_token_loss
from lightning_mono.params import expand
from lightning_mono.stages import Optim


class Training:
    """Contestants learn from the same batch with the same AdamW, at a rate of 0.

    So the weights stay, and losses and gradients have to agree in every turn. The text behind the
    image is what is learned.
    """

    name = "train"
    title = "Tokens a second in training"
    rate = True
    memory_layers: int | None = None

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.models = Models(subject)

    @cached_property
    def module(self) -> MonoModule:
        """The model as it trains in the recipe's first stage."""
        module = MonoModule(self.models.mono, Optim(lr=0.0))
        groups = module.group_names()
        learning = {name for group in self.train for name in groups[group]}
        for name, parameter in self.models.mono.named_parameters():
            parameter.requires_grad_(name in learning)
        return module

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        return self.module.configure_optimizers()

    @property
    def train(self) -> tuple[str, ...]:
        """Parameter groups that learn."""
        wanted = self.subject.train
        return expand(wanted, MonoModule(self.models.mono, Optim()).group_names())

    def line_up(self, prompt: Prompt, names: Collection[str]) -> dict[str, Contestant]:
        """Those of ``names``, in our order; a turn's result is its loss."""
        batch = self._batch(prompt)
        weight = batch.weights.sum()
        module = self.module
        losses: dict[str, Callable[[], Tensor]] = {
            OURS: lambda: module.part_loss(batch, weight),
            PLAIN: lambda: _plain(module.model, batch),
            REFERENCE: lambda: reference.loss(module.model, batch),
        }
        return {
            name: Contestant(reset=self.optimizer.zero_grad, forward=loss, backward=self._learn)
            for name, loss in losses.items()
            if name in names
        }

    def seconds(self, sample: Sample) -> float:
        return sample.both

    def tokens(self, prompt: Prompt) -> int:
        return prompt.batch * prompt.tokens

    def floors(self, prompt: Prompt, machine: Machine) -> dict[str, float]:
        """Seconds of the products of the way there and back."""
        work = floor.training(self.subject.config, prompt, self.train)
        return {"GEMM": work.every / machine.flops, "GEMM, needed": work.needed / machine.flops}

    def outcome(self, result: Tensor) -> Tensor:
        """The loss, and the norm of each gradient; read right behind a turn."""
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        return torch.stack([result.detach(), *(gradient.norm() for gradient in gradients)])

    def weights(self, name: str) -> int:
        return self.models.weights(name)

    def _learn(self, loss: Tensor) -> None:
        loss.backward()
        groups = self.optimizer.param_groups
        clip(groups, norms_by_group(groups), self.module.optim.grad_clip)
        self.optimizer.step()

    def _batch(self, prompt: Prompt) -> Batch:
        config = self.subject.config
        ids, pixels = prompt.inputs(config)
        behind = torch.arange(prompt.tokens).expand_as(ids) >= prompt.front + prompt.visual
        return Batch.build(
            input_ids=ids,
            positions=torch.arange(prompt.tokens).repeat(prompt.batch, 1),
            documents=torch.ones_like(ids, dtype=torch.int32),
            branches=torch.zeros_like(ids, dtype=torch.int32),
            supervised=behind,
            pixel_values=pixels.to(self.subject.dtype),
            image_context_id=config.image_context_id,
            packed=False,
        ).to(self.subject.device)


def _plain(model: MonoModel, batch: Batch) -> Tensor:
    """The loss by way of all positions of the last layer."""
    hidden = model.hidden(batch).flatten(0, 1)
    return next_token_loss(model, batch, hidden.index_select(0, batch.predict)[None])
