"""The command line: one verb a task; parse, build, call."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_mono.arguments import (
    Parser,
    above_zero,
    add_prepare_arguments,
    parse,
    share,
    temperature,
    whole,
    words,
)
from lightning_mono.bench.arguments import add_bench_arguments
from lightning_mono.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb. Returns the exit status: 0, or 2 for what the user can put right."""
    arguments = parse(_parser(), argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    _quiet()
    try:
        status = run(arguments)
        sys.stdout.flush()  # here, where a reader that has gone can be handled
        return status
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


# -- verbs ------------------------------------------------------------------------------------


def _fit(arguments: argparse.Namespace) -> int:
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


def _evaluate(arguments: argparse.Namespace) -> int:
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


def _generate(arguments: argparse.Namespace) -> int:
    from lightning_mono.inference import Assistant

    images = [_image(path) for path in arguments.image]
    assistant = Assistant.from_pretrained(arguments.checkpoint, system=arguments.system)
    pieces = assistant.stream(arguments.prompt, images, **_decoding(arguments))
    if arguments.json:
        answer = "".join(pieces)
        print(json.dumps({"prompt": arguments.prompt, "image": arguments.image, "answer": answer}))
        return 0
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    return 0


def _chat(arguments: argparse.Namespace) -> int:
    from lightning_mono.chat import chat
    from lightning_mono.inference import Assistant

    images = [_image(path) for path in arguments.image]
    assistant = Assistant.from_pretrained(arguments.checkpoint, system=arguments.system)
    chat(assistant, images, _image, **_decoding(arguments))
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    import torch

    from lightning_mono.convert import convert

    written = convert(
        arguments.source,
        arguments.target,
        dtype=getattr(torch, arguments.dtype) if arguments.dtype else None,
        image_size=arguments.image_size,
        shard_bytes=int(arguments.shard_gb * 1e9),
    )
    if arguments.json:
        print(json.dumps(written))
    else:
        size, count = written["bytes"] / 1e6, written["parameters"]
        print(f"{written['folder']}: {count:,} parameters, {size:,.1f} MB on disk")
    return 0


def _prepare(arguments: argparse.Namespace) -> int:
    import time

    from tqdm import tqdm

    from lightning_mono.data.parts import Limits
    from lightning_mono.data.prepare import prepare_into
    from lightning_mono.data.report import in_words, report
    from lightning_mono.data.sources import SourceSpec, format_of

    given = {
        "images": arguments.images,
        "image_column": arguments.image_column,
        "caption_column": arguments.caption_column,
        "held_out_share": arguments.held_out,
    }
    options = {key: value for key, value in given.items() if value is not None}
    name = arguments.format or format_of(arguments.source)
    out, limits = Path(arguments.out), Limits(characters=arguments.max_characters)
    folders = {"train": out}
    if arguments.held_out is not None:
        folders = {split: out / split for split in ("train", "test")}
    reports = []
    for split, folder in folders.items():
        source = SourceSpec(name, split, {"path": arguments.source, **options})
        started = time.monotonic()
        with tqdm(unit=" records", disable=None, leave=False) as bar:
            workers = arguments.workers
            prepare_into(source, folder, workers=workers, limits=limits, progress=bar.update)
        reports.append(report(folder, time.monotonic() - started))
    print(json.dumps(reports) if arguments.json else in_words(reports))
    return 0


def _validate(arguments: argparse.Namespace) -> int:
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


def _plan(arguments: argparse.Namespace) -> int:
    from lightning_mono.plan import find_gpus, plain, plan, table
    from lightning_mono.recipe import load_recipe

    # --gpu takes all words behind it, overrides too.
    gpus = find_gpus([word for word in arguments.gpu if "=" not in word])
    late = [word for word in arguments.gpu if "=" in word]
    recipe = load_recipe(arguments.recipe, [*arguments.overrides, *late])
    planned = plan(recipe, gpus, arguments.utilisation)
    print(json.dumps(plain(planned)) if arguments.json else table(planned))
    return 0


def _ls(arguments: argparse.Namespace) -> int:
    from lightning_mono.backbones import PACKAGED
    from lightning_mono.data.sources import SOURCES
    from lightning_mono.kernels import KERNELS
    from lightning_mono.recipe import shipped_recipes

    recipes = {name: _purpose(path) for name, path in shipped_recipes().items()}
    if arguments.json:
        shipped = {"recipes": recipes, "backbones": list(PACKAGED), "sources": list(SOURCES)}
        print(json.dumps({**shipped, "kernels": list(KERNELS)}))
        return 0
    print("recipes")
    for name, purpose in recipes.items():
        print(f"  {name:26} {purpose}")
    for title, names in (("backbones", PACKAGED), ("sources", SOURCES), ("kernels", KERNELS)):
        print(f"{title}\n  {', '.join(names)}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from lightning_mono.recipe.load import load_with_origins, to_yaml
    from lightning_mono.recipe.show import with_origins

    recipe, origins = load_with_origins(arguments.recipe, arguments.overrides)
    if arguments.json:
        print(json.dumps({"recipe": asdict(recipe), "origins": origins}))
        return 0
    print(to_yaml(recipe) if arguments.plain else with_origins(recipe, origins), end="")
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    from lightning_mono.bench.cases import sweep
    from lightning_mono.bench.run import run

    cases = sweep(arguments.shape, arguments.tokens, arguments.visual_share, arguments.run_length)
    print(
        run(
            cases,
            kernels=arguments.kernels,
            device=arguments.device,
            dtype=arguments.dtype,
            rounds=arguments.repeats,
            threads=arguments.threads,
            as_json=arguments.json,
            out=arguments.out,
        )
    )
    return 0


# -- helpers ----------------------------------------------------------------------------------


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


def _image(path: str) -> bytes:
    from lightning_mono.data.images import decode
    from lightning_mono.errors import DataError

    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    decode(data, path)
    return data


def _decoding(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "max_new_tokens": arguments.max_new_tokens,
        "stop": arguments.stop,
        "repetition_penalty": arguments.repetition_penalty,
        "temperature": arguments.temperature,
        "top_p": arguments.top_p,
        "top_k": arguments.top_k,
        "seed": arguments.seed,
    }


def _purpose(path: Path) -> str:
    """The first line of a recipe's comment."""
    first = path.read_text(encoding="utf-8").splitlines()[0]
    return first.lstrip("# ").rstrip(".") if first.startswith("#") else ""


def _quiet() -> None:
    """Leaves the terminal to what the user asked for; Lightning's hints go."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"(lightning|litdata|torch)(\..*)?$")


def _parser() -> Parser:
    parser = Parser(
        prog="lightning-mono",
        description="Train, ablate and study monolithic multimodal LLMs.",
        epilog="lightning-mono VERB --help explains a verb, with an example",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(
        name: str, run: Callable[[argparse.Namespace], int], text: str, example: str
    ) -> argparse.ArgumentParser:
        added = verbs.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example: {example}",
        )
        added.set_defaults(run=run)
        return added

    def json_flag(added: argparse.ArgumentParser) -> None:
        added.add_argument("--json", action="store_true", help="print JSON")

    fit = verb(
        "fit",
        _fit,
        "Run a recipe: train its stages, measure, write a report.",
        "lightning-mono fit quickstart stages.vqa.optim.lr=1e-3 out=runs/faster",
    )
    fit.add_argument("recipe", help="a YAML file, or the name of a shipped recipe")
    fit.add_argument("overrides", nargs="*", metavar="key=value", help="values to change")
    again = fit.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with the run that is there")
    again.add_argument("--fresh", action="store_true", help="delete the run that is there first")
    json_flag(fit)

    evaluate = verb(
        "evaluate",
        _evaluate,
        "Measure a finished run anew and rewrite its report.",
        "lightning-mono evaluate runs/quickstart --limit 500",
    )
    evaluate.add_argument("run_folder", help="a run folder, such as runs/quickstart")
    evaluate.add_argument("--limit", type=whole(1), help="only the first N questions")
    json_flag(evaluate)

    generate = verb(
        "generate",
        _generate,
        "One answer to one prompt.",
        'lightning-mono generate runs/quickstart --image a.png --prompt "what shape is this?"',
    )
    generate.add_argument("--prompt", required=True, help="what to ask")
    talk = verb(
        "chat",
        _chat,
        "Talk to a model in the terminal.",
        "lightning-mono chat runs/quickstart --image a.png",
    )
    for added in (generate, talk):
        added.add_argument("checkpoint", help="a run folder, a model folder, or a hub id")
        added.add_argument("--image", action="append", default=[], help="may be given again")
        added.add_argument("--system", help="system message; by default the chat template's")
        added.add_argument("--max-new-tokens", type=whole(1), default=128)
        added.add_argument("--temperature", type=temperature, default=0.0, help="0: likeliest")
        added.add_argument("--top-p", type=share, default=1.0)
        added.add_argument("--top-k", type=whole(0), default=0, help="0: all")
        added.add_argument("--repetition-penalty", type=above_zero, default=1.0, help="1: none")
        added.add_argument("--seed", type=int, default=None)
        added.add_argument(
            "--stop", action="append", default=[], type=words, help="text that ends an answer"
        )
    json_flag(generate)

    change = verb(
        "convert",
        _convert,
        "Write a model anew: another dtype, other shards, another image size, or out of GGUF.",
        "lightning-mono convert OpenGVLab/Mono-InternVL-2B mono-2b --dtype bfloat16",
    )
    change.add_argument("source", help="a model folder, run folder, hub id, or GGUF file")
    change.add_argument("target", help="a new folder")
    change.add_argument("--dtype", choices=("float32", "bfloat16"), help="by default as stored")
    change.add_argument("--image-size", type=whole(1), help="side of a tile in pixels")
    change.add_argument("--shard-gb", type=above_zero, default=5.0, help="most of one file")
    json_flag(change)

    ready = verb(
        "prepare",
        _prepare,
        "Images and words to chunks that a recipe reads: sources: {x: {path: OUT}}.",
        "lightning-mono prepare llava_v1_5_mix665k.json data/sft --images images --workers 8",
    )
    add_prepare_arguments(ready)
    json_flag(ready)

    validate = verb(
        "validate",
        _validate,
        "Check recipes without running them; without a name, all that ship.",
        "lightning-mono validate my.yaml --set trainer.devices=8",
    )
    validate.add_argument("recipes", nargs="*", metavar="RECIPE")
    validate.add_argument("--set", action="append", default=[], metavar="key=value")
    json_flag(validate)

    costs = verb(
        "plan",
        _plan,
        "What a recipe will cost before it runs: parameters, memory, operations, hours.",
        "lightning-mono plan mono_internvl_2b/evip trainer.devices=64 --gpu h100 a100-80",
    )
    costs.add_argument("recipe", help="a YAML file, or the name of a shipped recipe")
    costs.add_argument("overrides", nargs="*", metavar="key=value", help="values to change")
    costs.add_argument(
        "--gpu", nargs="+", action="extend", default=[], metavar="NAME", help="h100, a100-80, ..."
    )
    costs.add_argument(
        "--utilisation", type=share, default=0.4, help="share of a GPU's peak that is reached"
    )
    json_flag(costs)

    bench = verb(
        "bench",
        _bench,
        "Time expert kernels against the bare matrix products, and against what memory allows.",
        "lightning-mono bench kernels --shape 2b --tokens 1024 256 --threads 2 --out bench",
    )
    add_bench_arguments(bench)
    json_flag(bench)

    json_flag(verb("ls", _ls, "What ships with the library.", "lightning-mono ls"))
    show = verb(
        "show",
        _show,
        "Print a recipe with every value, and where each came from.",
        "lightning-mono show quickstart optim.lr=3e-4",
    )
    show.add_argument("recipe")
    show.add_argument("overrides", nargs="*", metavar="key=value")
    form = show.add_mutually_exclusive_group()
    form.add_argument("--plain", action="store_true", help="plain YAML that can be run")
    form.add_argument("--json", action="store_true", help="print JSON")
    return parser
