"""The packed data of a recipe, where they and the tokenizer are there: nothing is made."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer

from lightning_mono import build
from lightning_mono.assets import cache_dir
from lightning_mono.backbones import PACKAGED, load_backbone
from lightning_mono.backbones.huggingface import folder_chat
from lightning_mono.backbones.peek import here
from lightning_mono.backbones.tokenizer import add_image_tokens, read_tokenizer
from lightning_mono.checkpoints.locate import model_folder
from lightning_mono.data.loader import StageData
from lightning_mono.data.prepare import place
from lightning_mono.data.render import Renderer
from lightning_mono.data.sources import SourceSpec
from lightning_mono.data.store import Store
from lightning_mono.errors import UserError
from lightning_mono.model import MonoConfig, MonoModel
from lightning_mono.model.meta import on_meta
from lightning_mono.plan.workload import Workload
from lightning_mono.recipe import Recipe
from lightning_mono.recipe.content import backbone_recipe
from lightning_mono.recipe.schema import SourceSection
from lightning_mono.runs import finished

ROWS = 64
"""Rows of the plan that averages are taken over."""

LOOKED_AT = 64
"""Samples of them that are read, to learn which of their tokens are visual or supervised."""

Sources = list[tuple[Store, float]]


def prepared(recipe: Recipe, name: str, config: MonoConfig) -> Workload | None:
    """A data set as the run will meet it; None where data or tokenizer are not here."""
    every = {other: stores_here(recipe, other) for other in recipe.data}
    sources = every[name]
    if sources is None:
        return None
    renderer = _renderer(recipe, config, every)
    if renderer is None:
        return None
    data = build.stage_data(recipe, name, sources, renderer, pad_id=0)
    packs = list(islice(data.plan.packs(), ROWS))
    items = [(item.source, item.sample) for row in packs for item in row]
    useful = sum(int(data.plan.lengths[source][index]) for source, index in items)
    visual, targets = _shares(data, config, items[:LOOKED_AT])
    per_row = useful / len(packs)
    return Workload(
        row_samples=len(items) / len(packs),
        row_useful=per_row,
        row_visual=per_row * visual,
        row_targets=per_row * targets,
        length=data.plan.sequence_length,
        data=data,
        note=f"prepared: {data.samples:,} samples, {useful / len(items):,.0f} tokens each, "
        f"{visual:.0%} visual, {targets:.0%} supervised; "
        f"rows {per_row / data.plan.sequence_length:.1%} full",
    )


def stores_here(recipe: Recipe, name: str) -> Sources | None:
    """The prepared sources of a data set; None where one is not prepared."""
    found: Sources = []
    for section in recipe.data[name].sources.values():
        folder = _folder(section)
        if folder is None and not section.optional:
            return None
        if folder is not None:
            found.append((Store(folder), section.weight))
    return found or None


def _folder(section: SourceSection) -> Path | None:
    if section.path is not None:
        folder = Path(section.path)
    else:
        assert section.source is not None
        try:
            spec = SourceSpec(section.source, section.split, section.options)
            folder = place(spec, cache_dir() / "prepared")
        except UserError:  # the files that it would be made of are not here either
            return None
    return folder if (folder / "index.json").is_file() else None


def _shares(
    data: StageData, config: MonoConfig, items: list[tuple[int, int]]
) -> tuple[float, float]:
    """Which part of the tokens is visual, and which supervised."""
    tokens = visual = targets = 0
    image = data.renderer.image_tokens
    for source, index in items:
        example = data.renderer.example(data.stores[source][index], data.plan.sequence_length)
        if example is None:
            continue
        tokens += len(example.input_ids)
        targets += int(example.supervised.sum())
        visual += int((example.input_ids == image.context).sum()) if image else 0
    return visual / tokens, targets / tokens


def _renderer(
    recipe: Recipe, config: MonoConfig, stores: dict[str, Sources | None]
) -> Renderer | None:
    """What turns samples into this model's tokens; None where its tokenizer is not here."""
    found = _tokenizer(recipe, config, stores)
    if found is None:
        return None
    tokenizer, chat = found
    if config.patchifier is not None:
        add_image_tokens(tokenizer)
    with on_meta():
        model = MonoModel(config)
    return build.recipe_renderer(recipe, model, tokenizer, recipe.model.chat or chat)


def _tokenizer(
    recipe: Recipe, config: MonoConfig, stores: dict[str, Sources | None]
) -> tuple[Tokenizer, str] | None:
    """The backbone's tokenizer and the name of its chat template."""
    if recipe.model.scratch is not None:
        text = stores[recipe.model.scratch.tokenizer_data]
        if text is None:
            return None
        made = build.scratch_backbone(
            recipe, {recipe.model.scratch.tokenizer_data: [store for store, _ in text]}
        )
        return made.tokenizer, made.chat
    name = recipe.model.pretrained or recipe.model.backbone or ""
    maker = backbone_recipe(recipe)
    if maker is not None:
        run = finished(maker, recipe)
        folder = None if run is None else run.model
    elif name in PACKAGED or name.endswith(".gguf"):
        if name in PACKAGED and not _fetched(name):
            return None
        backbone = load_backbone(name)
        return backbone.tokenizer, backbone.chat
    else:
        folder = here(name)
    if folder is None:
        return None
    folder = model_folder(folder)
    return read_tokenizer(folder), folder_chat(folder, config.decoder.family)


def _fetched(name: str) -> bool:
    packaged = PACKAGED[name]
    folder = cache_dir() / "assets" / f"{packaged.package}-{packaged.version}"
    return (folder / packaged.file).is_file()
