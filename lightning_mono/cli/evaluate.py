"""``lightning-mono evaluate``."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_mono.arguments import whole
from lightning_mono.cli.common import add_json

if TYPE_CHECKING:
    from lightning_mono.benchmarks.ranks import World
    from lightning_mono.benchmarks.run import Others

HELP = "Measure a model on benchmarks, or a finished run anew."
EXAMPLE = "lightning-mono evaluate runs/quickstart --benchmark easy_vqa --limit 500"
_ASKS = ("prompt", "max_new_tokens", "batch_size", "devices", "out", "judge", "fresh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("target", help="a run folder, a model folder or a hub id")
    add(
        "--benchmark",
        action="append",
        default=[],
        metavar="NAME|FILE|SCORING=FILE",
        help="one that ships (lightning-mono ls), or a .jsonl or .tsv file (docs/benchmarks.md); "
        "may be given again. Without it, what the recipe of a run measures is measured anew",
    )
    add("--prompt", metavar="TEMPLATE", help="text with {question}, {hint}, {options}; or a name")
    add("--max-new-tokens", type=whole(1), metavar="N", help="the longest answer")
    add("--limit", type=whole(1), metavar="N", help="only the first N questions")
    add("--batch-size", type=whole(1), metavar="N", help="questions in a batch; 16 by default")
    add("--devices", type=whole(1), metavar="N", help="processes that share the questions")
    add("--out", metavar="DIR", help="where results go; by default TARGET/benchmarks of a run")
    add("--judge", metavar="MODEL|FILE", help="a model, or a .jsonl file of verdicts")
    add("--fresh", action="store_true", default=None, help="ask anew what was answered before")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    if not arguments.benchmark:
        return _run_anew(arguments)
    from lightning_mono.benchmarks.find import open_benchmarks
    from lightning_mono.benchmarks.ranks import joined, launch
    from lightning_mono.benchmarks.results import table

    work = partial(_measure, vars(arguments) | {"run": None})
    if (arguments.devices or 1) > 1:
        open_benchmarks(**_chosen(vars(arguments)))  # what is wrong is said once, before all else
        results = launch(arguments.devices, work)
    else:
        with joined() as world:
            results = work(world)
            if not world.first:
                return 0
    print(json.dumps(results) if arguments.json else table(results))
    return 0


def _chosen(given: dict[str, Any]) -> dict[str, Any]:
    names = ("prompt", "max_new_tokens", "limit")
    return {"specs": given["benchmark"], **{name: given[name] for name in names}}


def _measure(given: dict[str, Any], world: World) -> dict[str, Any]:
    """Ask benchmarks, as one of several processes that do."""
    from lightning_mono.benchmarks.find import open_benchmarks
    from lightning_mono.benchmarks.judges import open_judge
    from lightning_mono.benchmarks.ranks import device
    from lightning_mono.benchmarks.run import run_benchmarks
    from lightning_mono.benchmarks.score import make_metric
    from lightning_mono.inference import Assistant

    target, batch_size = given["target"], given["batch_size"] or 16
    benchmarks = open_benchmarks(**_chosen(given))
    where = device()
    judge = None
    if given["judge"]:
        judges = []
        world.agree(lambda: judges.append(open_judge(given["judge"], batch_size, where)))
        judge = judges[0] if judges else None
    elif any(benchmark.scoring.judged for benchmark in benchmarks):
        for benchmark in benchmarks:
            make_metric(benchmark)  # says which needs one, before the model is loaded
    return run_benchmarks(
        Assistant.from_pretrained(target, device=where),
        benchmarks,
        Path(given["out"] or _place(target)),
        target=target,
        batch_size=batch_size,
        judge=judge,
        fresh=bool(given["fresh"]),
        others=_question_only(target, benchmarks),
        world=world,
    )


def _place(target: str) -> Path:
    """Where results go: into a run's folder; of other models, below the working directory."""
    if (Path(target) / "recipe.yaml").is_file():
        return Path(target) / "benchmarks"
    return Path("benchmarks") / Path(target).resolve().name


def _question_only(target: str, benchmarks: list[Any]) -> Others:
    """What the model that a run was compared with, which sees no picture, said to the same."""
    from dataclasses import replace

    from lightning_mono.evaluation.benchmark import read_predictions
    from lightning_mono.runs import finished, run_of

    if not (Path(target) / "recipe.yaml").is_file():
        return {}
    run, recipe = run_of(target)
    blind = finished(recipe.evaluation.question_only, replace(recipe, out=str(run.path)))
    if blind is None or not blind.predictions.is_file():
        return {}
    said = {(p.id, p.question): p.prediction for p in read_predictions(blind.predictions)}
    found = {}
    for benchmark in benchmarks:
        asked = {item.id: (item.id, item.words.question) for item in benchmark.items}
        if all(key in said for key in asked.values()):
            found[benchmark.name] = {"question only": {i: said[key] for i, key in asked.items()}}
    return found


def _run_anew(arguments: argparse.Namespace) -> int:
    """Measure what a run's recipe asks for, and rewrite its metrics.json and report."""
    from lightning_mono.errors import DataError
    from lightning_mono.evaluation.evaluate import evaluate
    from lightning_mono.inference import Assistant
    from lightning_mono.recipe.content import backbone_recipe
    from lightning_mono.runs import finished, run_of

    for name in _ASKS:
        if getattr(arguments, name) is not None:
            raise DataError(f"--{name.replace('_', '-')} goes with --benchmark: name one")
    run, recipe = run_of(arguments.target)
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
