"""One record of a benchmark file, read key by key; what is wrong with it is noted, not raised."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from lightning_mono.errors import DataError

MOST_PROBLEMS = 20  # that one error lists


class Problems:
    """What is wrong in a file, gathered so that it can be put right at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []
        self.count = 0

    def add(self, where: str, what: str) -> None:
        """Note one: where it is in the file, and what it is with what to do about it."""
        self.count += 1
        if self.count <= MOST_PROBLEMS:
            self.lines.append(f"{self.path}, {where}: {what}")

    def stop(self) -> None:
        """Raise what was gathered, if anything.

        Raises:
            DataError: a line for each of the first problems, and how many more there are.
        """
        if self.count > MOST_PROBLEMS:
            self.lines.append(f"{self.path}: and {self.count - MOST_PROBLEMS} more problems")
        if self.lines:
            raise DataError("\n".join(self.lines))


class Record:
    """The keys of one record.

    A getter that finds its key wrong notes it and returns something of the right type, so that one
    pass names everything that is wrong with the record; nothing is made of one with `problems`.

    Args:
        values: the record.
        called: what the file calls a key, where that is not its name here.
    """

    def __init__(self, values: Mapping[str, Any], called: Mapping[str, str] | None = None) -> None:
        self.values = values
        self.called = called or {}
        self.problems: list[str] = []
        self.read: set[str] = set()

    def note(self, key: str, what: str) -> None:
        """Note what is wrong with a key, and what to do."""
        self.problems.append(f"{self.called.get(key, key)}: {what}")

    def has(self, key: str) -> bool:
        """Whether the key is there, and not empty."""
        self.read.add(key)
        return self.values.get(key) not in (None, "")

    def text(self, key: str, fix: str = "", *, default: str | None = None) -> str:
        """A text or a number, as text; `default` where it is not there."""
        if not self.has(key):
            if default is None:
                self.note(key, f"is missing or empty; {fix or 'give it'}")
            return default or ""
        return self._as_text(key, self.values[key])

    def texts(self, key: str, fix: str) -> tuple[str, ...]:
        """A list of texts, or one text; there is at least one."""
        if not self.has(key):
            self.note(key, f"is missing or empty; {fix}")
            return ()
        value = self.values[key]
        if isinstance(value, list) and not value:
            self.note(key, f"is an empty list; {fix}")
        return tuple(self._as_text(key, v) for v in (value if isinstance(value, list) else [value]))

    def one_of(self, key: str, choices: Sequence[str]) -> Any:
        """One of a few words, whatever its case; the choices are in lower case."""
        said = self.text(key, f"give one of {', '.join(choices)}").strip()
        found = {choice.lower(): choice for choice in choices}.get(said.lower())
        if said and found is None:
            self.note(key, f"is {said!r}; it must be one of {', '.join(choices)}")
        return found or choices[0]

    def whole(self, key: str, default: int) -> int:
        """A whole number."""
        said = self.text(key, default=str(default))
        try:
            return int(float(said))
        except (ValueError, OverflowError):
            self.note(key, f"is {said!r}; write a whole number")
            return default

    def positive(self, key: str, fix: str) -> float:
        """A number above 0."""
        value = self.values.get(key)
        self.read.add(key)
        if value in (None, ""):
            self.note(key, f"is missing or empty; {fix}")
        elif (number := _number(value)) is None or not 0 < number < float("inf"):
            self.note(key, f"is {value!r}; {fix}")
        else:
            return number
        return 1.0

    def numbers(self, key: str, count: int, fix: str) -> tuple[float, ...]:
        """A list of so many numbers."""
        value = self.values.get(key)
        self.read.add(key)
        numbers = [_number(each) for each in value] if isinstance(value, list) else []
        if len(numbers) != count or None in numbers:
            self.note(key, f"is {value!r}; {fix}")
            return (0.0,) * count
        return tuple(number for number in numbers if number is not None)

    def options(self, key: str = "options") -> dict[str, str]:
        """Letter to text: of an object as it is, of a list from A on; empty where there is none."""
        self.read.add(key)
        value = self.values.get(key)
        if value in (None, "", [], {}):
            return {}
        if isinstance(value, list) and len(value) <= len(ascii_uppercase):
            value = dict(zip(ascii_uppercase, value, strict=False))
        if not isinstance(value, dict):
            self.note(key, "is not a list of at most 26 texts, or an object of letters and texts")
            return {}
        return {str(letter): self._as_text(key, text) for letter, text in value.items()}

    def unknown(self) -> Iterable[str]:
        """Note each key that nothing has asked for, with its nearest neighbour."""
        for key in self.values:
            if key not in self.read:
                near = difflib.get_close_matches(key, sorted(self.read), 1)
                hint = f"did you mean {near[0]!r}?" if near else "remove it, or put it under 'note'"
                self.problems.append(f"{key}: is no key of such a record; {hint}")
        return self.problems

    def _as_text(self, key: str, value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self.note(key, f"holds {value!r}, which is no text")
            return ""
        return str(value)


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
