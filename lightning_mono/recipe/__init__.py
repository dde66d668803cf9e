"""A recipe is an experiment as typed data: read, merged, checked, before anything heavy starts."""

from lightning_mono.recipe.load import (
    find_recipe,
    load_recipe,
    load_with_origins,
    shipped_recipes,
    to_yaml,
)
from lightning_mono.recipe.resolve import build_stages, merged_optim
from lightning_mono.recipe.schema import Recipe

__all__ = [
    "Recipe",
    "build_stages",
    "find_recipe",
    "load_recipe",
    "load_with_origins",
    "merged_optim",
    "shipped_recipes",
    "to_yaml",
]
