"""The options of ``lightning-mono bench``; reading them imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from lightning_mono.arguments import above_zero, whole
from lightning_mono.bench.cases import SHAPES, Shape, shape, share
from lightning_mono.bench.names import CONTESTANTS, TURN

RECIPE = "mono_internvl_2b/evip"


def add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    """A sub-command for each thing to measure."""
    kinds = parser.add_subparsers(dest="what", metavar="what", required=True)
    for name, (add, says) in KINDS.items():
        kind = kinds.add_parser(name, help=says, description=f"{says[0].upper()}{says[1:]}.")
        add(kind)
        _machine(kind)
        kind.add_argument("--out", metavar="DIR", help=f"write {name}.json and {name}.png there")
        kind.add_argument("--json", action="store_true", help="print JSON")


def _kernels(parser: argparse.ArgumentParser) -> None:
    """Lists are swept one at a time from their first values."""
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


def _prefill(parser: argparse.ArgumentParser) -> None:
    _model(parser, "prefill", lengths=[1024, 2048, 4096], concurrency=[1], rounds=5, seconds=60)


def _decode(parser: argparse.ArgumentParser) -> None:
    lengths, concurrency = [1024, 2048, 4096], [1, 16]
    _model(parser, "decode", lengths=lengths, concurrency=concurrency, rounds=24, seconds=40)


def _train(parser: argparse.ArgumentParser) -> None:
    _model(parser, "train", lengths=[1024], concurrency=[1], rounds=5, seconds=180)


def _model(
    parser: argparse.ArgumentParser,
    kind: str,
    *,
    lengths: Sequence[int],
    concurrency: Sequence[int],
    rounds: int,
    seconds: int,
) -> None:
    """A model, prompts, contestants, and for how long they are timed."""
    model = parser.add_argument_group("the model")
    model.add_argument(
        "--recipe", default=RECIPE, help=f"its shapes count, not its weights; by default {RECIPE}"
    )
    model.add_argument("overrides", nargs="*", metavar="key=value", help="changes of the recipe")
    model.add_argument(
        "--layers",
        type=whole(1),
        default=3,
        help="of the model; the vocabulary shrinks by as much (default: %(default)s)",
    )
    asked = parser.add_argument_group("what it is given")
    asked.add_argument(
        "--lengths",
        type=whole(1),
        nargs="+",
        default=lengths,
        help="tokens of a row, image and text (default: %(default)s)",
    )
    asked.add_argument("--text", type=whole(2), default=256, help="of these (default: %(default)s)")
    asked.add_argument(
        "--concurrency",
        type=whole(1),
        nargs="+",
        default=concurrency,
        help="rows at a time (default: %(default)s)",
    )
    timed = parser.add_argument_group("how it is timed")
    timed.add_argument(
        "--contestants",
        nargs="+",
        choices=CONTESTANTS[kind],
        metavar="NAME",
        help=f"of {', '.join(CONTESTANTS[kind])}; by default all that run here",
    )
    turn = f", of {TURN} tokens in each row" if kind == "decode" else ""
    timed.add_argument(
        "--rounds", type=whole(1), default=rounds, help=f"at most{turn} (default: %(default)s)"
    )
    timed.add_argument(
        "--seconds",
        type=above_zero,
        default=seconds,
        help="for the rounds of a prompt; there is always one (default: %(default)s)",
    )
    timed.add_argument(
        "--no-memory", action="store_true", help="leave out the peak memory at the longest prompt"
    )
    timed.add_argument(
        "--profile", action="store_true", help="name the operators that take ours its time there"
    )


def _machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), help="by default the GPU, if any")
    dtypes = ("float32", "bfloat16", "float16")
    parser.add_argument("--dtype", choices=dtypes, help="by default float32; bfloat16 on a GPU")
    parser.add_argument("--threads", type=whole(1), help="of the CPU; by default as torch has it")


KINDS = {
    "prefill": (_prefill, "time to the first token, against other ways, a twin and a floor"),
    "decode": (_decode, "new tokens a second, against other ways, a twin and a floor"),
    "train": (_train, "a training step of a recipe's first stage, against the official way"),
    "kernels": (_kernels, "FFN experts against their bare matrix products"),
}
