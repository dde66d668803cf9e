"""``lightning-mono retention``."""

from __future__ import annotations

import argparse
import json

from lightning_mono.arguments import whole
from lightning_mono.cli.common import add_json
from lightning_mono.recipe.schema import EvaluationSection

HELP = "What is left of the language: a model on text alone, against the LLM that it was made from."
EXAMPLE = "lightning-mono retention runs/quickstart --text book.txt"
TEXT = "stdlib_docs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        help="a run folder (all of its stages), RUN/STAGE, a model folder or a hub id",
    )
    parser.add_argument(
        "--against",
        metavar="BASE",
        help="what to compare with, named likewise, or an LLM; by default the one that the run "
        "was made from",
    )
    parser.add_argument(
        "--text",
        metavar="FILE",
        help="held-out text: a UTF-8 file, or a data source; by default the recipe's "
        f"evaluation.retention_source, or {TEXT}",
    )
    parser.add_argument(
        "--tokens",
        type=whole(1),
        help="of the text, at most; by default the recipe's evaluation.retention_tokens, or 4096",
    )
    parser.add_argument(
        "--quiz",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="also the four-way quiz of general knowledge (needs a Debian package)",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    import torch

    from lightning_mono.retention.compare import compare, documents, plain, table, text_of
    from lightning_mono.retention.quiz import quiz_items
    from lightning_mono.retention.readers import named_run, open_reader, targets, untouched

    loading = targets(arguments.target)
    known = named_run(arguments.target)
    base = open_reader(arguments.against) if arguments.against else untouched(arguments.target)
    section = known[1].evaluation if known else EvaluationSection()
    ours = section.retention_source if arguments.text is None else None
    comparison, findings = compare(
        base,
        loading,
        documents(ours) if ours else text_of(arguments.text or TEXT),
        arguments.tokens or section.retention_tokens,
        quiz_items() if arguments.quiz else [],
        "cuda" if torch.cuda.is_available() else "cpu",
    )
    if arguments.json:
        print(json.dumps(plain(comparison, findings)))
        return 0
    print(table(comparison, findings))
    return 0
