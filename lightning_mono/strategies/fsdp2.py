"""Several devices that share the model between them, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.optim import Optimizer
from typing_extensions import override

from lightning_mono.checkpoints.run import read
from lightning_mono.errors import RecipeError
from lightning_mono.model.decoder import Block
from lightning_mono.model.vit import VitLayer
from lightning_mono.strategies.kernel import KernelStrategyMixin
from lightning_mono.strategies.shards import gathered_state, sharded_moments, sharded_state


class LayerShardingStrategy(ModelParallelStrategy):
    """FSDP2 for modules that know nothing of it, with checkpoints that know nothing of it either.

    Lightning's own strategy leaves the sharding to the module's ``configure_model``; this one does
    it itself, and has all devices share the data.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, **kwargs)

    @override
    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes  # "auto": one a node
        super().setup_environment()

    @override
    def setup(self, trainer: pl.Trainer) -> None:
        assert self.lightning_module is not None
        if not isinstance(self.lightning_module, FSDPModule):
            refuse_quantised_weights(self.lightning_module)
            shard(self.lightning_module, self.device_mesh["data_parallel"])
        # ModelParallelStrategy's own insists on configure_model, and does nothing else beside.
        Strategy.setup(self, trainer)

    @override
    def setup_optimizers(self, trainer: pl.Trainer) -> None:
        super().setup_optimizers(trainer)
        refuse_quantised_moments(self.optimizers)

    # -- checkpoints ------------------------------------------------------------------------

    @property
    @override
    def lightning_restore_optimizer(self) -> bool:
        return True

    @override
    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return gathered_state(self.lightning_module.state_dict(), keep=self.is_global_zero)

    @override
    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer.optimizer
        return gathered_state(optimizer.state_dict(), keep=self.is_global_zero)

    @override
    def load_checkpoint(
        self, checkpoint_path: _PATH, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read(Path(checkpoint_path))

    @override
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        state = sharded_state(checkpoint["state_dict"], own)
        self.lightning_module.load_state_dict(state, strict=strict)

    @override
    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(sharded_moments(state, optimizer))


class MonoFSDP2Strategy(KernelStrategyMixin, LayerShardingStrategy):
    """Several devices, each with a share of every weight (FSDP2).

    Weights, gradients and moments lie sharded. A layer is put together while it runs;
    what is outside the layers, for the whole step. What trains may change between any two steps.
    After a fit the model stays sharded; checkpoints hold it whole, as any other strategy's do.
    """


def shard(module: pl.LightningModule, mesh: DeviceMesh) -> None:
    """Shards each layer as a unit, and what is outside them as another, in place.

    The unit around all is the Lightning module and not its model, and its step counts as its
    forward pass: the head runs outside the model's own, and a unit has to see all its uses. A
    module that runs backward inside its step names what goes before it in ``forward_methods``.
    """
    for block in module.modules():
        if isinstance(block, Block | VitLayer):
            fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    for method in getattr(module, "forward_methods", _steps(module)):
        register_fsdp_forward_method(module, method)
    module.register_forward_hook(_reshard_after_reading)


def _steps(module: pl.LightningModule) -> list[str]:
    """What Lightning calls instead of ``forward``."""
    steps = ("training_step", "validation_step", "test_step", "predict_step")
    return [step for step in steps if is_overridden(step, module)]


def refuse_quantised_weights(module: nn.Module) -> None:
    """Refuses weights that have no meaning in slices.

    Raises:
        RecipeError: the module holds some.
    """
    for name, parameter in module.named_parameters():
        if not parameter.is_floating_point():
            raise RecipeError(
                f"mono_fsdp2 cannot shard the quantised {name}; use trainer.strategy=mono_ddp, or "
                "model.quantize=none"
            )


def refuse_quantised_moments(optimizers: Iterable[Optimizer]) -> None:
    """Refuses optimizers that cannot step on slices.

    Raises:
        RecipeError: there is one of bitsandbytes.
    """
    for optimizer in optimizers:
        if type(optimizer).__module__.startswith("bitsandbytes"):
            raise RecipeError(
                f"mono_fsdp2 cannot shard the moments of {type(optimizer).__name__}; use "
                "trainer.strategy=mono_ddp, or optim.name=adamw"
            )


def _reshard_after_reading(module: nn.Module, inputs: Any, output: Any) -> None:
    """The unit around all is taken apart by its backward pass, and reading has none."""
    if not torch.is_grad_enabled():
        assert isinstance(module, FSDPModule)
        module.reshard()
