"""``lightning-mono show``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from lightning_mono.cli.common import add_recipe

HELP = "Print a recipe with every value, and where each came from."
EXAMPLE = "lightning-mono show quickstart optim.lr=3e-4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--plain", action="store_true", help="plain YAML that can be run")
    form.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    from lightning_mono.recipe.load import load_with_origins, to_yaml
    from lightning_mono.recipe.show import with_origins

    recipe, origins = load_with_origins(arguments.recipe, arguments.overrides)
    if arguments.json:
        print(json.dumps({"recipe": asdict(recipe), "origins": origins}))
        return 0
    print(to_yaml(recipe) if arguments.plain else with_origins(recipe, origins), end="")
    return 0
