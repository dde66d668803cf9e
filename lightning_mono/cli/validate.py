"""``lightning-mono validate``."""

from __future__ import annotations

import argparse
import json

from lightning_mono.cli.common import add_json
from lightning_mono.errors import UserError

HELP = "Check recipes without running them; without a name, all that ship."
EXAMPLE = "lightning-mono validate my.yaml --set trainer.devices=8"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipes", nargs="*", metavar="RECIPE")
    parser.add_argument("--set", action="append", default=[], metavar="key=value")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from lightning_mono.recipe import load_recipe, shipped_recipes
    from lightning_mono.recipe.validate import needs

    names = arguments.recipes or list(shipped_recipes())
    results = []
    for name in names:
        found: list[str] = []
        lacking: list[str] = []
        try:
            recipe = load_recipe(name, arguments.set)
            lacking = list(needs(recipe))
            from lightning_mono.build import check_on_meta

            check_on_meta(recipe)
        except UserError as error:
            found = str(error).splitlines()
        results.append({"recipe": str(name), "ok": not found, "problems": found, "needs": lacking})
    if arguments.json:
        print(json.dumps(results))
    else:
        for result in results:
            print(f"{'ok     ' if result['ok'] else 'broken '} {result['recipe']}")
            for problem in result["problems"]:  # type: ignore[attr-defined]
                print(f"        {problem}")
            for need in result["needs"]:  # type: ignore[attr-defined]
                print(f"        needs: {need}")
    return 0 if all(result["ok"] for result in results) else 2
