"""``lightning-mono ls``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lightning_mono.cli.common import add_json

HELP = "What ships with the library."
EXAMPLE = "lightning-mono ls"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from lightning_mono.backbones import PACKAGED
    from lightning_mono.benchmarks.shipped import SHIPPED
    from lightning_mono.data.sources import SOURCES
    from lightning_mono.kernels import KERNELS
    from lightning_mono.recipe import shipped_recipes
    from lightning_mono.studies.load import shipped_studies

    recipes = {name: _purpose(path) for name, path in shipped_recipes().items()}
    studies = {name: _purpose(path) for name, path in shipped_studies().items()}
    if arguments.json:
        shipped = {"recipes": recipes, "studies": studies, "benchmarks": list(SHIPPED)}
        shipped |= {"backbones": list(PACKAGED), "sources": list(SOURCES)}
        print(json.dumps({**shipped, "kernels": list(KERNELS)}))
        return 0
    print("recipes")
    for name, purpose in recipes.items():
        print(f"  {name:26} {purpose}")
    print("studies")
    for name, purpose in studies.items():
        print(f"  {name:26} {purpose}")
    print("benchmarks")
    for name, benchmark in SHIPPED.items():
        print(f"  {name:26} {benchmark.purpose}")
    for title, names in (("backbones", PACKAGED), ("sources", SOURCES), ("kernels", KERNELS)):
        print(f"{title}\n  {', '.join(names)}")
    return 0


def _purpose(path: Path) -> str:
    """The first line of a file's comment."""
    first = path.read_text(encoding="utf-8").splitlines()[0]
    return first.lstrip("# ").rstrip(".") if first.startswith("#") else ""
