"""A conversation in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from lightning_mono.data.sample import Exchange
from lightning_mono.errors import DataError
from lightning_mono.inference import Assistant, Picture

HELP = "type a question; /image FILE opens a new picture, /clear forgets, /quit or Ctrl-D ends"


def chat(
    assistant: Assistant,
    images: Sequence[Picture],
    *,
    max_new_tokens: int,
    **sampling: Any,
) -> None:
    """Reads questions from standard input and streams answers until it ends."""
    from lightning_mono.cli import _image

    pictures = list(images)
    history: list[Exchange] = []
    if sys.stdin.isatty():
        print(HELP)
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if line in ("/quit", "/exit"):
            return
        if line == "/clear":
            history = []
        elif line.startswith("/image"):
            try:
                pictures, history = [_image(line.removeprefix("/image").strip())], []
            except DataError as error:
                print(f"error: {error}", file=sys.stderr)
        elif line.startswith("/"):
            print(HELP)
        elif line:
            history.append(_turn(assistant, pictures, history, line, max_new_tokens, sampling))


def _turn(
    assistant: Assistant,
    pictures: Sequence[Picture],
    history: Sequence[Exchange],
    question: str,
    max_new_tokens: int,
    sampling: dict[str, Any],
) -> Exchange:
    answer = ""
    for piece in assistant.stream(
        question, pictures, history=history, max_new_tokens=max_new_tokens, **sampling
    ):
        answer += piece
        print(piece, end="", flush=True)
    print()
    return Exchange(question, answer)
