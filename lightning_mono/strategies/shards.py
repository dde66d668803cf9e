"""Between sharded tensors and whole ones: a file does not tell how many processes wrote it.

Both ways go tensor by tensor and keep keys and order, so what is written is what one process alone
would write. PyTorch's distributed state dicts are not used: with them optimizer states are
numbered by the model's parameters where an optimizer alone numbers them by its groups, and moments
are restored only for what happens to train at that moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map


def is_sharded(module: nn.Module) -> bool:
    """Whether this process holds only a part of the module's weights."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def gathered_state(state: Any, *, keep: bool) -> Any:
    """Puts the sharded tensors of a state together, on the CPU; all processes must call it.

    Args:
        keep: whether this process wants the result; the others drop each tensor as it comes.
    """

    def gather(value: Any) -> Any:
        if not isinstance(value, DTensor):
            return value
        full = value.full_tensor()
        return full.cpu() if keep else None

    return tree_map(gather, state)


def sharded_state(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Shards whole tensors as the tensors of the same names in ``own`` are."""
    return {
        name: sharded(value, own[name]) if name in own else value for name, value in state.items()
    }


def sharded_moments(state: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """Shards the state of an optimizer as its parameters are.

    Moments belong to parameters by their order in the groups, whatever their numbers are.
    """
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    owners = dict(zip(numbers, parameters, strict=True))
    moments = {
        number: {key: sharded(value, owners[number]) for key, value in values.items()}
        for number, values in state["state"].items()
    }
    return {**state, "state": moments}


def sharded(value: Any, example: Tensor) -> Any:
    """A whole tensor sharded as ``example`` is; what has another shape (a count) stays whole."""
    if not isinstance(example, DTensor) or getattr(value, "shape", None) != example.shape:
        return value
    # All processes hold the whole value, so each cuts out its own part and none sends any.
    value = value.to(example.device)
    return distribute_tensor(value, example.device_mesh, example.placements, src_data_rank=None)
