"""Starting from the weights of another run: those that one of its stages ended with."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from lightning_mono.checkpoints.run import read
from lightning_mono.errors import CheckpointError
from lightning_mono.model import MonoModel
from lightning_mono.model.quantised import SCHEMES


def starting_point(name: str) -> Path:
    """The checkpoint that ``model.init_from`` names: RUN/STAGE, or a file.

    Raises:
        CheckpointError: there is none; says what there is.
    """
    path = Path(name).expanduser()
    if path.suffix == ".ckpt":
        if path.is_file():
            return path
        raise CheckpointError(f"model.init_from: {path} does not exist")
    ends = stage_ends(path.parent)
    if path.name in ends:
        return ends[path.name]
    there = f"the stages that have ended there: {', '.join(ends)}" if ends else "none has yet"
    raise CheckpointError(
        f"model.init_from: {path.parent} has no stage {path.name!r} that has ended ({there})"
    )


def stage_ends(run: Path) -> dict[str, Path]:
    """Stage -> the checkpoint of its end, of the stages of a run that have ended, in order."""
    found = (run / "checkpoints").glob("stage=*.ckpt")
    named = [(re.fullmatch(r"stage=(.+)-step=(\d+)\.ckpt", path.name), path) for path in found]
    ended = sorted((int(match[2]), match[1], path) for match, path in named if match)
    return {stage: path for _, stage, path in ended}


def start_from(model: MonoModel, path: Path, vocabulary: str) -> None:
    """Gives a model the weights of a checkpoint, in place.

    Experts that the checkpoint lacks become copies of its text weights, which computes the same.
    Text weights that were rounded there are the full ones of this model, if those are the same.

    Args:
        vocabulary: of this model's tokenizer, as :func:`vocabulary_mark` gives it.

    Raises:
        CheckpointError: it is the checkpoint of another model; names the first difference.
    """
    if read(path).get("vocabulary", vocabulary) != vocabulary:
        raise CheckpointError(
            f"{path}: its run has another tokenizer; name that run's backbone as this one's"
        )
    weights = saved_weights(path)
    own = model.state_dict()
    for name in weights:
        if name not in own and not name.endswith(".scales"):
            raise CheckpointError(
                f"{path}: holds {name}, which this recipe's model lacks; make its model section "
                "like that run's"
            )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(_start(name, own, weights, path))


def saved_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint by their names in the model."""
    return {name.removeprefix("model."): v for name, v in read(path)["state_dict"].items()}


def vocabulary_mark(tokenizer: Tokenizer) -> str:
    """Tells tokenizers apart by their words and ids."""
    words = json.dumps(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def _start(
    name: str, own: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: Path
) -> Tensor:
    """The value that a weight starts with."""
    source = name if name in weights else name.replace(".visual.", ".text.")
    if source not in weights:
        raise CheckpointError(
            f"{path}: has no {name}, which this recipe's model has; make its model section like "
            "that run's"
        )
    value = weights[source]
    if not value.is_floating_point():
        scheme = SCHEMES["nf4" if value.dtype == torch.uint8 else "int8"]
        scales = scheme.encode(own[source].float())[1].view(torch.int32)
        if not torch.equal(scales, weights[source.removesuffix("weight") + "scales"]):
            raise CheckpointError(
                f"{path}: {source} was rounded there from another weight; name that run's backbone"
            )
        return own[source]
    if value.shape != own[name].shape:
        raise CheckpointError(
            f"{path}: {source} is {tuple(value.shape)}, and this recipe's model has "
            f"{tuple(own[name].shape)}; make its model and image sections like that run's"
        )
    return value
