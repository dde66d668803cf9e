"""``lightning-mono bench``."""

from __future__ import annotations

import argparse

from lightning_mono.bench.arguments import add_bench_arguments

HELP = "Time prefill, decoding, training and expert kernels against other ways and against floors."
EXAMPLE = "lightning-mono bench prefill --lengths 1024 --threads 2 --out bench"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bench_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from lightning_mono.bench.run import run_kernels, run_model

    print(run_kernels(arguments) if arguments.what == "kernels" else run_model(arguments))
    return 0
