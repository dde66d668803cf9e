"""``lightning-mono ablate``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from lightning_mono.arguments import whole
from lightning_mono.cli.common import add_json

HELP = "Run a study: arms and seeds, a table with error bars, a report."
EXAMPLE = "lightning-mono ablate placement --jobs 2 optim.lr=1e-3"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", help="a YAML file, or the name of a shipped study")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="recipe keys to change in all runs"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/studies"), help="folder of all studies"
    )
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="instead of the file's")
    parser.add_argument(
        "--jobs", type=whole(1), metavar="N", help="runs at a time; by default as there is room"
    )
    parser.add_argument(
        "--keep-checkpoints", action="store_true", help="of runs that are done, too"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="say which runs there are, run none")
    what.add_argument("--report", action="store_true", help="of what is done, run none")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from lightning_mono.studies.load import load_study
    from lightning_mono.studies.report import table
    from lightning_mono.studies.report.write import plain
    from lightning_mono.studies.run import list_runs, run_study

    study = load_study(arguments.study, arguments.overrides, arguments.seeds)
    if arguments.list:
        listed = list_runs(study, arguments.out)
        print(json.dumps(listed) if arguments.json else _lines(listed))
        return 0
    results, page = run_study(
        study,
        arguments.out,
        jobs=arguments.jobs,
        keep_checkpoints=arguments.keep_checkpoints,
        report_only=arguments.report,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if arguments.json:
        print(json.dumps(plain(results)))
    else:
        print(f"{table(results)}\nreport: {page}")
    failed = sum(len(arm.failures) for arm in results.arms)
    if failed:
        print(
            f"error: {failed} of {len(results.cells)} runs failed; {page} says why; "
            "the same command tries them again",
            file=sys.stderr,
        )
    return 2 if failed else 0


def _lines(listed: list[dict[str, object]]) -> str:
    return "\n".join(
        f"{'done   ' if one['done'] else 'to run '} {one['name']}  {one['folder']}"
        for one in listed
    )
