"""Language models by name: a run, a stage of it, a model folder, the LLM that a run began with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer

from lightning_mono import build
from lightning_mono.backbones import PACKAGED, load_backbone
from lightning_mono.backbones.tokenizer import read_tokenizer
from lightning_mono.checkpoints.locate import model_folder
from lightning_mono.errors import CheckpointError
from lightning_mono.model import MonoModel
from lightning_mono.recipe import Recipe
from lightning_mono.recipe.content import backbone_recipe
from lightning_mono.runs import RunFolder, dependency, run_of
from lightning_mono.starting import stage_ends, start_from, vocabulary_mark


@dataclass(frozen=True, eq=False)
class Reader:
    """A model with the tokenizer that it reads text by.

    Attributes:
        name: how it was asked for, or the stage that it is of.
        model: in fp32, on the CPU.
    """

    name: str
    model: MonoModel
    tokenizer: Tokenizer


def open_reader(spec: str) -> Reader:
    """Loads a model.

    Args:
        spec: RUN/STAGE, a run or model folder, a packaged name, a GGUF file or a hub id.

    Raises:
        UserError: there is no such model, or it cannot be read.
    """
    if spec in PACKAGED or spec.endswith(".gguf"):
        return _text_llm(spec, spec)
    run = RunFolder(Path(spec).expanduser().parent)
    if run.recipe.is_file() and not Path(spec).expanduser().exists():
        return _stage(run, Path(spec).name, spec)
    folder = model_folder(spec)
    model = MonoModel.from_pretrained(folder, dtype=torch.float32)
    return Reader(spec, model, read_tokenizer(folder))


def named_run(spec: str) -> tuple[RunFolder, Recipe] | None:
    """The run that a name is of, RUN or RUN/STAGE, with its recipe; None where it is of none."""
    path = Path(spec).expanduser()
    for folder in (path, path.parent):
        if RunFolder(folder).recipe.is_file() and (folder == path or not path.exists()):
            return run_of(folder)
    return None


def targets(spec: str) -> list[Callable[[], Reader]]:
    """What a name stands for: each stage's end of a run folder and its exported model; or itself.

    Loading is left to the caller, who has room for one of them at a time.

    Raises:
        CheckpointError: nothing of the run is there yet.
    """
    path = Path(spec).expanduser()
    run = RunFolder(path)
    if not run.recipe.is_file():
        return [partial(open_reader, spec)]
    ready: list[Callable[[], Reader]] = [
        partial(_stage, run, stage, stage) for stage in stage_ends(path)
    ]
    if run.trained:
        ready.append(partial(_exported, run))
    if not ready:
        raise CheckpointError(f"{spec}: no stage has ended yet; go on with fit --resume")
    return ready


def untouched(spec: str) -> Reader:
    """The LLM that a run, or RUN/STAGE, was made from: its backbone, or what it trained further.

    Raises:
        CheckpointError: it is no run, its language model was trained from nothing, or what it was
            made from is no longer there.
    """
    known = named_run(spec)
    if known is None:
        raise CheckpointError(f"{spec} is no run; name what to compare with: --against MODEL")
    run, recipe = known
    if recipe.model.pretrained is not None:
        return open_reader(recipe.model.pretrained)
    if recipe.model.backbone is None:
        raise CheckpointError(
            f"{run.path} trained its language model from nothing; name what to compare with: "
            "--against MODEL"
        )
    return _text_llm(backbone_of(run, recipe), recipe.model.backbone)


def _exported(run: RunFolder) -> Reader:
    return replace(open_reader(str(run.model)), name="model")


def _text_llm(spec: str, name: str) -> Reader:
    backbone = load_backbone(spec)
    return Reader(name, MonoModel.graft(backbone).eval(), backbone.tokenizer)


def backbone_of(run: RunFolder, recipe: Recipe) -> str:
    """Where a run's backbone is; one that another recipe made lies beside the run."""
    assert recipe.model.backbone is not None
    maker = backbone_recipe(recipe)
    if maker is None:
        return recipe.model.backbone
    made = RunFolder(Path(dependency(maker, replace(recipe, out=str(run.path))).out))
    if not made.trained:
        raise CheckpointError(
            f"{made.path}: the backbone that {maker} made for {run.path.name} is not there; name "
            "what to compare with: --against MODEL"
        )
    return str(made.model)


def _stage(run: RunFolder, stage: str, name: str) -> Reader:
    """The weights that a stage of a run ended with."""
    ends = stage_ends(run.path)
    if stage not in ends:
        there = ", ".join(ends) or "none has yet"
        raise CheckpointError(f"{run.path} has no stage {stage!r} that has ended ({there})")
    model, tokenizer = _begun(run, run_of(run.path)[1])
    start_from(model, ends[stage], vocabulary_mark(tokenizer))
    return Reader(name, model.eval(), tokenizer)


def _begun(run: RunFolder, recipe: Recipe) -> tuple[MonoModel, Tokenizer]:
    """A model of the shape of a run's, and its tokenizer."""
    if run.trained:
        reader = open_reader(str(run.model))
        return reader.model, reader.tokenizer
    if recipe.model.pretrained is not None:
        mono = build.pretrained_model(recipe)
    elif recipe.model.backbone is not None:
        mono = build.build_model(recipe, load_backbone(backbone_of(run, recipe)))
    else:
        raise CheckpointError(f"{run.path} is not finished; go on with fit --resume")
    return mono.model, mono.renderer.tokenizer
