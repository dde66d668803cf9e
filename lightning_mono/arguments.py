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
