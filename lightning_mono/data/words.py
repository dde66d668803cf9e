"""Text to ids as a tokenizer reads a whole conversation, though the text comes in pieces."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from typing import Any, Literal

from tokenizers import Tokenizer

Part = int | str
"""The id of a special token, or words in which no special token is recognised."""

Place = Literal["first", "behind a special token", "behind words"]
"""Where words stand; some tokenizers begin words with a space of their own in some places."""


class Words:
    """Encodes words by the place where they stand, special tokens in them as plain text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        first = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizers: dict[Place, Tokenizer] = {
            "first": first,
            "behind a special token": _changed(first, _without_prefix_inside),
            "behind words": _changed(first, _without_prefix),
        }

    def ids(self, text: str, place: Place) -> list[int]:
        """The ids of words."""
        tokenizer = self._tokenizers[place]
        # Set at each call: the flag is lost when the tokenizer is pickled to a worker.
        tokenizer.encode_special_tokens = True
        return list(tokenizer.encode(text, add_special_tokens=False).ids)


class Script:
    """A conversation as it is written: parts go in, ids come out.

    Words between two special tokens are one run and get the ids of the run as a whole, however
    many parts they came in. A cut puts a token boundary into the run: what follows is encoded as
    the continuation of what stands there. Where a merge would cross the boundary there is none,
    and what follows is encoded as a run of its own.
    """

    def __init__(self, words: Words, place: Place = "first") -> None:
        self._words = words
        self._place = place
        self._run = ""
        self._laid: list[int] = []  # the ids of the run
        self._pending = ""  # words of the run that have no ids yet
        self._ids: list[int] = []  # since the last cut

    def write(self, parts: Iterable[Part]) -> None:
        """Goes on with special tokens and words."""
        for part in parts:
            if isinstance(part, str):
                self._pending += part
            else:
                self._lay_pending()
                self._ids.append(part)
                self._place, self._run, self._laid = "behind a special token", "", []

    def cut(self) -> list[int]:
        """The ids since the last cut; what is written next begins at a token boundary."""
        self._lay_pending()
        ids, self._ids = self._ids, []
        return ids

    def fork(self) -> Script:
        """A script that goes on from the cut that was just made, beside this one."""
        fork = copy.copy(self)
        fork._ids = []
        return fork

    def _lay_pending(self) -> None:
        if not self._pending:
            return
        whole = self._words.ids(self._run + self._pending, self._place)
        if whole[: len(self._laid)] != self._laid:
            self._place, self._run, self._laid = "behind words", "", []
            whole = self._words.ids(self._pending, self._place)
        self._ids += whole[len(self._laid) :]
        self._run, self._laid, self._pending = self._run + self._pending, whole, ""


_Spec = dict[str, Any]


def _changed(tokenizer: Tokenizer, change: Callable[[_Spec], _Spec | None]) -> Tokenizer:
    """A tokenizer with the parts changed that prepare text; itself where nothing changes."""
    spec = json.loads(tokenizer.to_str())
    parts = {part: _nested(spec[part], change) for part in ("normalizer", "pre_tokenizer")}
    changed = {**spec, **parts}
    return tokenizer if changed == spec else Tokenizer.from_str(json.dumps(changed))


def _nested(part: _Spec | None, change: Callable[[_Spec], _Spec | None]) -> _Spec | None:
    if part is None or part["type"] != "Sequence":
        return part and change(part)
    parts = {
        key: [changed for inner in value if (changed := _nested(inner, change)) is not None]
        for key, value in part.items()
        if isinstance(value, list)
    }
    return {**part, **parts}


def _without_prefix_inside(part: _Spec) -> _Spec:
    """A prefix for the first words of a text, and no others."""
    first = part["type"] == "Metaspace" and part["prepend_scheme"] == "first"
    return {**part, "prepend_scheme": "never"} if first else part


def _without_prefix(part: _Spec) -> _Spec | None:
    match part["type"]:
        case "Prepend":
            return None
        case "Metaspace":
            return {**part, "prepend_scheme": "never"}
        case "ByteLevel":
            return {**part, "add_prefix_space": False}
    return part
