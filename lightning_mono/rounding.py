"""Text weights that are kept in few bits while a run trains, and in full before and after."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lightning_mono import build
from lightning_mono.journal import Journal
from lightning_mono.model import MonoModel
from lightning_mono.model.quantised import bytes_by_group, quantise, restore
from lightning_mono.params import TEXT_PATH
from lightning_mono.recipe import Recipe
from lightning_mono.starting import saved_weights, starting_point


def round_text(recipe: Recipe, model: MonoModel, journal: Journal) -> None:
    """Rounds the text weights where the recipe says so, in place, and notes what that saves."""
    scheme = recipe.model.quantize
    if scheme == "none":
        return
    before = bytes_by_group(model)
    quantise(model, scheme)
    after = bytes_by_group(model)
    journal.write("quantised", scheme=scheme, bytes_before=before, bytes_after=after)

    def megabytes(groups: Iterable[str]) -> str:
        sizes = (sum(by[group] for group in groups) / 1e6 for by in (before, after))
        return " MB -> ".join(f"{size:,.1f}" for size in sizes) + " MB"

    text = megabytes(TEXT_PATH & before.keys())
    print(f"{scheme}: text {text}; whole model {megabytes(before)}", flush=True)


def restore_text(recipe: Recipe, model: MonoModel, language: Path | None) -> None:
    """Puts the full weights back, in place: what is exported and measured has no rounded ones.

    Args:
        language: the model that another recipe made as this one's backbone, if one did.
    """
    if recipe.model.quantize == "none":
        return
    full = dict(build.full_weights(recipe, language))
    if recipe.model.init_from is not None:
        start = saved_weights(starting_point(recipe.model.init_from))
        full |= {name: value for name, value in start.items() if value.is_floating_point()}
    restore(model, full)
