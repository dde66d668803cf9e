"""``lightning-mono plan``."""

from __future__ import annotations

import argparse
import json

from lightning_mono.arguments import share
from lightning_mono.cli.common import add_json, add_recipe

HELP = "What a recipe will cost before it runs: parameters, memory, operations, hours."
EXAMPLE = "lightning-mono plan mono_internvl_2b/evip trainer.devices=64 --gpu h100 a100-80"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument(
        "--gpu", nargs="+", action="extend", default=[], metavar="NAME", help="h100, a100-80, ..."
    )
    parser.add_argument(
        "--utilisation", type=share, default=0.4, help="share of a GPU's peak that is reached"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from lightning_mono.plan import find_gpus, plain, plan, table
    from lightning_mono.recipe import load_recipe

    # --gpu takes all words behind it, overrides too.
    gpus = find_gpus([word for word in arguments.gpu if "=" not in word])
    late = [word for word in arguments.gpu if "=" in word]
    recipe = load_recipe(arguments.recipe, [*arguments.overrides, *late])
    planned = plan(recipe, gpus, arguments.utilisation)
    print(json.dumps(plain(planned)) if arguments.json else table(planned))
    return 0
