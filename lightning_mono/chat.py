"""A conversation in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from lightning_mono.errors import DataError
from lightning_mono.inference import Assistant, Picture

HELP = (
    "type a question; /image FILE shows a picture with the next question, /clear forgets, "
    "/quit or Ctrl-D ends"
)


def chat(
    assistant: Assistant,
    images: Sequence[Picture],
    read_image: Callable[[str], Picture],
    **settings: Any,
) -> None:
    """Reads questions from standard input and streams answers until it ends.

    Args:
        images: pictures of the first question.
        read_image: opens the file of an ``/image`` line; raises DataError.
        settings: of `Conversation.ask`.
    """
    conversation, pictures = assistant.conversation(), list(images)
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
            conversation, pictures = assistant.conversation(), []
        elif line.startswith("/image"):
            try:
                pictures.append(read_image(line.removeprefix("/image").strip()))
            except DataError as error:
                print(f"error: {error}", file=sys.stderr)
        elif line.startswith("/"):
            print(HELP)
        elif line:
            try:
                for piece in conversation.ask(line, pictures, **settings):
                    print(piece, end="", flush=True)
                print()
                pictures = []
            except DataError as error:
                print(f"error: {error}", file=sys.stderr)
