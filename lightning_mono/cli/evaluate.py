"""``lightning-mono evaluate``."""

from __future__ import annotations

import argparse
import json

from lightning_mono.arguments import whole
from lightning_mono.cli.common import add_json

HELP = "Measure a finished run anew and rewrite its report."
EXAMPLE = "lightning-mono evaluate runs/quickstart --limit 500"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", help="a run folder, such as runs/quickstart")
    parser.add_argument("--limit", type=whole(1), help="only the first N questions")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from lightning_mono.evaluation.evaluate import evaluate
    from lightning_mono.inference import Assistant
    from lightning_mono.runs import backbone_recipe, finished, run_of

    run, recipe = run_of(arguments.run_folder)
    limit = arguments.limit
    if limit is not None and recipe.evaluation.benchmark is not None:
        recipe.evaluation.benchmark.limit = limit
    language = finished(backbone_recipe(recipe), recipe)
    metrics = evaluate(
        recipe,
        run,
        Assistant.from_pretrained(run.path),
        question_only=finished(recipe.evaluation.question_only, recipe),
        language_run=language.path if language else None,
    )
    print(json.dumps(metrics) if arguments.json else json.dumps(metrics, indent=2))
    return 0
