"""From what a strategy leaves after training to the model that is exported and measured."""

from __future__ import annotations

from pathlib import Path

from lightning_mono.checkpoints.run import read
from lightning_mono.model import MonoModel
from lightning_mono.model.meta import on_meta
from lightning_mono.strategies import is_sharded


def trained_model(model: MonoModel, newest: Path) -> MonoModel:
    """The model of a run's last checkpoint, whole, with its averages where it has any.

    Args:
        model: as it was trained; a model that is not shared with other processes is filled in
            place.
        newest: the checkpoint.
    """
    saved = read(newest)
    state = {name.removeprefix("model."): value for name, value in saved["state_dict"].items()}
    if is_sharded(model):
        with on_meta():
            whole = MonoModel(model.config)
        whole.load_state_dict(state, assign=True)
        whole.entries, model = model.entries, whole
    else:
        model.load_state_dict(state)
    # A checkpoint is mapped from its file, and is not to be written to.
    weights = dict(model.named_parameters())
    for name, average in saved.get("average", {}).items():
        weights[name].data = average.to(weights[name].dtype, copy=True).to(weights[name].device)
    return model.requires_grad_(False)
