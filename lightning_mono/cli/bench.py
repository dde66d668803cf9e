"""``lightning-mono bench``."""

from __future__ import annotations

import argparse

from lightning_mono.bench.arguments import add_bench_arguments
from lightning_mono.cli.common import add_json

HELP = "Time expert kernels against the bare matrix products, and against what memory allows."
EXAMPLE = "lightning-mono bench kernels --shape 2b --tokens 1024 256 --threads 2 --out bench"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bench_arguments(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
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
