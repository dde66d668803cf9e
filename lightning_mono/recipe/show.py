"""A recipe as a person reads it: every value, and behind it where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lightning_mono.recipe.load import to_yaml
from lightning_mono.recipe.schema import Recipe


def with_origins(recipe: Recipe, origins: Mapping[str, str]) -> str:
    """YAML whose lines end in a comment: the file or override that set the value, or default.

    Args:
        origins: dotted key -> what set it, as ``load_with_origins`` gives it.
    """
    lines = to_yaml(recipe).splitlines()
    width = min(60, max(len(line) for line in lines))
    path: list[tuple[int, str]] = []
    shown = []
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.lstrip().startswith("- ") or ":" not in line:
            shown.append(line)
            continue
        key, _, value = line.strip().partition(":")
        path = [entry for entry in path if entry[0] < indent]
        path.append((indent, key))
        dotted = ".".join(name for _, name in path)
        if value.strip() or dotted in origins:
            origin = Path(origins[dotted]).name if dotted in origins else "default"
            if origins.get(dotted, "").startswith("override"):
                origin = origins[dotted]
            line = f"{line:<{width}}  # {origin}"
        shown.append(line)
    return "\n".join(shown) + "\n"
