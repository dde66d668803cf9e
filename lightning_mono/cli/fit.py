"""``lightning-mono fit``."""

from __future__ import annotations

import argparse
import json

from lightning_mono.cli.common import add_json, add_recipe

HELP = "Run a recipe: train its stages, measure, write a report."
EXAMPLE = "lightning-mono fit quickstart stages.vqa.optim.lr=1e-3 out=runs/faster"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with the run that is there")
    again.add_argument("--fresh", action="store_true", help="delete the run that is there first")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from lightning_mono.recipe import load_recipe

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    from lightning_mono.training import fit

    result = fit(recipe, resume=arguments.resume, fresh=arguments.fresh)
    if arguments.json:
        print(json.dumps(result.metrics))
    else:
        _summary(result.metrics)
        print(f"report: {result.run.report}")
    return 0


def _summary(metrics: dict[str, object]) -> None:
    """The headline figures, a line each."""
    test, retention = metrics.get("test"), metrics.get("retention")
    if isinstance(test, dict):
        line = f"accuracy {test['accuracy']:.1%} on {test['questions']} questions"
        if test["question_only_accuracy"] is not None:
            line += f"; without the images {test['question_only_accuracy']:.1%}"
        print(f"{line}; majority answer {test['majority_accuracy']:.1%}")
    if isinstance(retention, dict):
        same = "bit-identical" if retention["text_logits_identical"] else "changed"
        before, after = retention["perplexity_before"], retention["perplexity_after"]
        print(f"text-only logits {same}; perplexity {before:.2f} before, {after:.2f} after")
