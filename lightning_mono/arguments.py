"""What the command line has in common: one-line errors, overrides anywhere, numbers in range."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command in one line, as every other error is said."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def parse(parser: Parser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses a command; ``key=value`` may also stand behind an option."""
    arguments, rest = parser.parse_known_args(argv)
    late = [word for word in rest if "=" in word and not word.startswith("-")]
    if rest and (late != rest or not hasattr(arguments, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if late:
        arguments.overrides = [*arguments.overrides, *late]
    return arguments


def whole(low: int) -> Callable[[str], int]:
    """An argument type: a whole number from ``low`` on."""

    def read(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"{text} must be {low} or more")
        return value

    read.__name__ = "whole number"
    return read


def temperature(text: str) -> float:
    """An argument type: 0 or above."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be 0 or more")
    return value


def share(text: str) -> float:
    """An argument type: above 0, and 1 at most."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} must be above 0, and 1 at most")
    return value


def above_zero(text: str) -> float:
    """An argument type: above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return value


def words(text: str) -> str:
    """An argument type: text that is not empty."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return text


def local(text: str) -> str:
    """An argument type: a path on this machine."""
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"{text} is an address; prepare from a folder into a folder, then copy that to the "
            "store, from which recipes read it"
        )
    return text


def add_prepare_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``lightning-mono prepare`` takes."""
    add = parser.add_argument
    add(
        "source",
        type=local,
        help="a file, a folder, a pattern, or one with braces ({0000..0099}.tar)",
    )
    add("out", type=local, help="a new folder; one that was begun is gone on with")
    add(
        "--format",
        choices=("llava", "webdataset", "table"),
        help="LLaVA's JSON or JSON Lines, tar files, CSV/TSV/Parquet; by default by the file names",
    )
    add("--images", metavar="DIR", help="where image names start; by default beside the source")
    add("--image-column", metavar="NAME", help="of a table; by default image, path and the like")
    add("--caption-column", metavar="NAME", help="of a table; by default caption, text, title, ...")
    add("--workers", type=whole(1), default=1, metavar="N", help="processes; 1 by default")
    add(
        "--held-out",
        type=share,
        metavar="SHARE",
        help="share of the pictures that goes to OUT/test; the others go to OUT/train",
    )
    add(
        "--max-characters",
        type=whole(1),
        default=1_000_000,
        metavar="N",
        help="a sample with more text is skipped as too long; 1,000,000 by default",
    )
