"""The options of ``lightning-mono bench``; reading them imports nothing heavy."""

from __future__ import annotations

import argparse

from lightning_mono.arguments import whole
from lightning_mono.bench.cases import SHAPES, Shape, shape, share


def add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure, and how; lists are swept one at a time from their first values."""
    parser.add_argument("what", choices=("kernels",), help="kernels: FFN experts")
    swept = parser.add_argument_group(
        "what is swept",
        "Of each list the first value is the base; the others take its place one at a time.",
    )

    def option(name: str, **settings: object) -> None:
        swept.add_argument(name, nargs="+", **settings)  # type: ignore[arg-type]

    option("--tokens", type=whole(1), default=[1024, 256], help="rows of a batch")
    option("--visual-share", type=share, default=[0.75, 0.25], help="of the tokens, 0 to 1")
    option("--run-length", type=whole(1), default=[256, 1], help="of visual tokens")
    base = [Shape("135m", *SHAPES["135m"]), Shape("2b", *SHAPES["2b"])]
    names = ", ".join(SHAPES)
    option("--shape", type=shape, default=base, help=f"{names}, or HIDDEN,FFN")
    parser.add_argument("--kernels", nargs="+", default=[], help="by default all that run here")
    parser.add_argument("--repeats", type=whole(1), default=5, help="rounds that count")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="by default the GPU, if any")
    dtypes = ("float32", "bfloat16", "float16")
    parser.add_argument("--dtype", choices=dtypes, help="by default float32; bfloat16 on a GPU")
    parser.add_argument("--threads", type=whole(1), help="of the CPU; by default as torch has it")
    parser.add_argument("--out", metavar="DIR", help="write kernels.json and kernels.png there")
