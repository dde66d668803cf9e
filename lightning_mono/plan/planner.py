"""What a recipe will cost: parameters, memory, operations and hours, by stage."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lightning_mono.errors import RecipeError
from lightning_mono.model import MonoConfig
from lightning_mono.plan.flops import Flops, count
from lightning_mono.plan.flow import Flow, flow_of
from lightning_mono.plan.gpus import Gpu
from lightning_mono.plan.memory import APART, Memory, Setup, Step
from lightning_mono.plan.microbatch import MicroBatch
from lightning_mono.plan.model import planned_model
from lightning_mono.plan.numeric import NUMERIC
from lightning_mono.plan.prepared import prepared
from lightning_mono.plan.weights import Weight, numbers_by_group, weights_of
from lightning_mono.plan.workload import Workload, assumed
from lightning_mono.recipe import Recipe, build_stages
from lightning_mono.stages import Duration, Stage

GIB = 2**30


@dataclass(frozen=True)
class StagePlan:
    """One stage.

    Attributes:
        name: of the stage.
        train: parameter groups that learn.
        trainable: numbers that learn.
        steps: optimizer steps.
        samples: samples that are seen.
        tokens: tokens that are read, padding not counted.
        micro_batch: what one device computes at a time.
        accumulate: micro-batches of a step.
        flops: of a step on all devices.
        moment: at which memory is highest.
        memory: bytes on one device at that moment.
    """

    name: str
    train: tuple[str, ...]
    trainable: int
    steps: int
    samples: float
    tokens: float
    micro_batch: MicroBatch
    accumulate: int
    flops: Flops
    moment: str
    memory: Memory

    @property
    def flops_per_token(self) -> float:
        return self.flops.total * self.steps / self.tokens

    def hours(self, rate: float, devices: int) -> float:
        """Hours on so many devices of ``rate`` operations a second each."""
        return self.flops.total * self.steps / (rate * devices) / 3600


@dataclass(frozen=True)
class Plan:
    """A recipe before it runs.

    Attributes:
        recipe: its name.
        config: the model.
        parameters: numbers by parameter group.
        setup: how the last stage is executed.
        utilisation: share of a GPU's peak that is reached.
        stages: in order.
        gpus: those that hours are asked for.
        notes: where the figures are from, and what was assumed.
    """

    recipe: str
    config: MonoConfig
    parameters: Mapping[str, int]
    setup: Setup
    precision: str
    utilisation: float
    stages: tuple[StagePlan, ...]
    gpus: tuple[Gpu, ...]
    notes: tuple[str, ...]

    @property
    def total_parameters(self) -> int:
        return sum(self.parameters.values())

    @property
    def text_parameters(self) -> int:
        """Numbers that serve a text token: those of the text LLM itself."""
        others = [n for n in self.parameters if n.startswith(("patchifier", "experts."))]
        return self.total_parameters - sum(self.parameters[name] for name in others)

    def rate(self, gpu: Gpu) -> float:
        """Operations that a GPU does a second in this recipe's precision."""
        peak = gpu.bf16 if self.precision.startswith("bf16") else gpu.fp32
        return peak * self.utilisation

    def fits(self, gpu: Gpu, stage: StagePlan) -> bool:
        """Whether a stage fits into a GPU's memory."""
        return stage.memory.total + APART <= gpu.memory * GIB


def plan(recipe: Recipe, gpus: Sequence[Gpu], utilisation: float) -> Plan:
    """Plans a recipe; nothing is run, and neither data nor weights are needed.

    Args:
        gpus: to say hours for.
        utilisation: share of their peak that is reached.

    Raises:
        RecipeError: the recipe does not fit the model, or a stage's length cannot be known.
        AssetError, CheckpointError: the model's shape cannot be known.
    """
    config, origin = planned_model(recipe)
    weights = weights_of(config)
    parameters = numbers_by_group(weights)
    loads = {
        name: prepared(recipe, name, config) or assumed(recipe, name, config)
        for name in _used(recipe)
    }
    schedule = build_stages(recipe, parameters, _steps_of(recipe, loads))
    planner = _Planner(recipe, config, weights, loads, setup_of(recipe))
    stages, learnt = [], set[str]()
    for stage in schedule.stages:
        learnt |= set(stage.train)
        stages.append(planner.stage(stage, learnt))
    notes = [origin, *(f"data.{name}: {load.note}" for name, load in loads.items())]
    return Plan(
        recipe=recipe.name,
        config=config,
        parameters=parameters,
        setup=planner.setup,
        precision=recipe.trainer.precision,
        utilisation=utilisation,
        stages=tuple(stages),
        gpus=tuple(gpus),
        notes=tuple(notes),
    )


def setup_of(recipe: Recipe) -> Setup:
    """How a recipe is executed, but for what each stage says itself; on GPUs unless it says no."""
    trainer = recipe.trainer
    device: Literal["cpu", "cuda"] = "cpu" if trainer.accelerator == "cpu" else "cuda"
    strategy = trainer.strategy
    if strategy == "auto":
        strategy = "mono_single" if trainer.devices == 1 else "mono_ddp"
    fastest = "triton" if device == "cuda" else "gathered"
    return Setup(
        strategy=strategy,
        devices=trainer.devices,
        numeric=NUMERIC[trainer.precision],
        optimizer=recipe.optim.name,
        quantize=recipe.model.quantize,
        checkpointing=trainer.activation_checkpointing,
        accumulate=1,
        device=device,
        kernel=fastest if trainer.kernel == "auto" else trainer.kernel,
    )


@dataclass(frozen=True)
class _Planner:
    recipe: Recipe
    config: MonoConfig
    weights: tuple[Weight, ...]
    loads: Mapping[str, Workload]
    setup: Setup

    def stage(self, stage: Stage, learnt: Collection[str]) -> StagePlan:
        """One stage; ``learnt`` are the groups that train in it or have trained before."""
        load = self.loads[stage.data]
        devices = self.setup.devices
        parts = devices * stage.accumulate
        rows = self.recipe.data[stage.data].batch_size // parts
        batch = load.micro_batch(self.config, rows, split=self.setup.device == "cpu")
        flow: Flow = flow_of(self.config, stage.train)
        averaged = frozenset(learnt if self.recipe.trainer.ema is not None else ())
        setup = replace(self.setup, accumulate=stage.accumulate, averaged=averaged)
        flops = count(self.config, flow, batch, checkpointing=setup.checkpointing)
        moment, memory = Step(self.config, self.weights, flow, batch, setup).peak()
        return StagePlan(
            name=stage.name,
            train=stage.train,
            trainable=sum(w.numbers for w in self.weights if w.group in stage.train),
            steps=stage.steps,
            samples=stage.steps * parts * batch.samples,
            tokens=stage.steps * parts * batch.useful,
            micro_batch=batch,
            accumulate=stage.accumulate,
            flops=flops * parts,
            moment=moment,
            memory=memory,
        )


def _used(recipe: Recipe) -> list[str]:
    """Data sets that a stage trains on."""
    return [name for name in recipe.data if any(s.data == name for s in recipe.stages.values())]


def _steps_of(recipe: Recipe, loads: Mapping[str, Workload]) -> Callable[[str, Duration], int]:
    def steps(name: str, duration: Duration) -> int:
        size = recipe.data[name].batch_size
        found = loads[name].steps(duration, size, recipe.trainer.devices)
        if found is None:
            raise RecipeError(
                f"data.{name}: an epoch of data that are not prepared has no known length; say "
                "the stage's duration in samples, tokens or steps"
            )
        return found

    return steps
