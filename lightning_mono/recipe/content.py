"""What a run's figures depend on: the recipe, those that it builds on, and the files it reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from lightning_mono import __version__
from lightning_mono.recipe.load import load_recipe
from lightning_mono.recipe.schema import Recipe

STORE_MANIFEST = "manifest.json"


def content_key(recipe: Recipe) -> str:
    """Sixteen letters that stand for all that a run's figures depend on, its name aside."""
    content = {"version": __version__, "recipes": [_told(r) for r in _with_makers(recipe)]}
    content["files"] = [_stamp(path) for r in _with_makers(recipe) for path in _read_by(r)]
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def backbone_recipe(recipe: Recipe) -> str | None:
    """The recipe that makes this one's backbone, if one does."""
    name = recipe.model.backbone or ""
    return name.removeprefix("recipe:") if name.startswith("recipe:") else None


def _with_makers(recipe: Recipe) -> list[Recipe]:
    """A recipe and those it builds on, without names and folders."""
    named = [name for name in (backbone_recipe(recipe), recipe.evaluation.question_only) if name]
    inner = [found for name in named for found in _with_makers(load_recipe(name))]
    return [replace(recipe, name="", out=""), *inner]


def _told(value: Any) -> Any:
    """A recipe's values but for those that are the schema's defaults.

    A key that a later version adds, with a default that changes nothing, must not run all anew.
    """
    if is_dataclass(value):
        kept = {}
        for field in fields(value):
            default = field.default
            if field.default_factory is not MISSING:
                default = field.default_factory()
            given = getattr(value, field.name)
            if given != default:
                kept[field.name] = _told(given)
        return kept
    if isinstance(value, dict):
        return {str(key): _told(inner) for key, inner in value.items()}
    return value


def _read_by(recipe: Recipe) -> Iterator[Path]:
    """Files and folders of the user's that a recipe reads."""
    model = recipe.model
    for name in (model.backbone, model.pretrained, model.init_from):
        if name is not None and Path(name).exists():
            yield Path(name)
    for data in recipe.data.values():
        for source in data.sources.values():
            if source.path is not None and (Path(source.path) / STORE_MANIFEST).is_file():
                yield Path(source.path) / STORE_MANIFEST


def _stamp(path: Path) -> list[Any]:
    """What changes when a file, or one of a folder's own files, does."""
    found = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in found]
