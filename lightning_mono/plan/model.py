"""The model that a recipe describes, without its weights, and how its shape is known."""

from __future__ import annotations

from dataclasses import replace

from lightning_mono.backbones.hub import is_hub_id
from lightning_mono.backbones.peek import here, peek_tokens
from lightning_mono.backbones.tokenizer import VISUAL_TOKENS
from lightning_mono.build import known_config
from lightning_mono.errors import AssetError
from lightning_mono.model import MonoConfig
from lightning_mono.recipe import Recipe, load_recipe


def planned_model(recipe: Recipe) -> tuple[MonoConfig, str]:
    """The model's configuration, and in a line where it is from.

    The vocabulary is the one that grafting makes: the tokenizer with the visual tokens added,
    or the backbone's own where that has spare rows for them.

    Raises:
        AssetError: the shape is not known here.
        RecipeError, CheckpointError: as `known_config` raises.
    """
    config = known_config(recipe)
    if config is None:
        name = recipe.model.pretrained or recipe.model.backbone
        raise AssetError(
            f"the shape of {name} is not known here; fetch its config.json into a folder, and "
            "name that folder"
        )
    if recipe.model.pretrained is not None:
        return _resized(recipe, config), _origin(recipe.model.pretrained)
    if config.patchifier is None:
        return config, _backbone_origin(recipe)
    decoder = replace(config.decoder, vocab_size=_vocabulary(recipe, config.decoder.vocab_size))
    return replace(config, decoder=decoder), _backbone_origin(recipe)


def _resized(recipe: Recipe, config: MonoConfig) -> MonoConfig:
    """With tiles of the recipe's size; the table of positions keeps its own."""
    if config.patchifier is None:
        return config
    table = config.patchifier.table_size or config.patchifier.image_size
    resized = replace(config.patchifier, image_size=recipe.image.size, table_size=table)
    return replace(config, patchifier=resized)


def _vocabulary(recipe: Recipe, rows: int) -> int:
    name = recipe.model.backbone
    if name is None:
        return rows + len(VISUAL_TOKENS)
    if name.startswith("recipe:"):
        return _vocabulary(load_recipe(name.removeprefix("recipe:")), rows)
    return max(rows, peek_tokens(name) or 0)


def _backbone_origin(recipe: Recipe) -> str:
    name = recipe.model.backbone
    if name is None:
        return "shape: model.scratch"
    if name.startswith("recipe:"):
        return f"shape: {name}; {_backbone_origin(load_recipe(name.removeprefix('recipe:')))}"
    return _origin(name)


def _origin(name: str) -> str:
    if is_hub_id(name) and here(name) is None:
        return f"shape: {name} by the table that ships here; its files are not at hand"
    return f"shape: {name}"
