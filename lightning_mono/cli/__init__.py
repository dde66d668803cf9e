"""The command line: one verb a module; each parses, builds and calls."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from lightning_mono.arguments import Parser, parse
from lightning_mono.cli import (
    ablate,
    bench,
    chat,
    convert,
    evaluate,
    fit,
    generate,
    ls,
    maps,
    plan,
    prepare,
    retention,
    serve,
    show,
    validate,
)
from lightning_mono.errors import UserError

VERBS = (
    fit,
    evaluate,
    retention,
    ablate,
    generate,
    chat,
    serve,
    maps,
    convert,
    prepare,
    validate,
    plan,
    bench,
    ls,
    show,
)
"""In the order in which ``--help`` names them."""


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
    for verb in VERBS:
        added = verbs.add_parser(
            verb.__name__.rpartition(".")[2],
            help=verb.HELP,
            description=verb.HELP,
            epilog=f"example: {verb.EXAMPLE}",
        )
        verb.add_arguments(added)
        added.set_defaults(run=verb.run)
    return parser
