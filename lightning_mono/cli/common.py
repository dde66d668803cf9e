"""What verbs have in common: recipes with overrides, JSON, how answers are drawn, pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lightning_mono.arguments import above_zero, share, temperature, whole, words


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """A recipe and what to change of it."""
    parser.add_argument("recipe", help="a YAML file, or the name of a shipped recipe")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values to change")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_quantize(parser: argparse.ArgumentParser) -> None:
    """Few bits for a model that answers: `Assistant.from_pretrained(quantize=...)`."""
    parser.add_argument(
        "--quantize", choices=("nf4", "int8"), help="keep the layers' matrices in 4 or 8 bits"
    )


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """A model, pictures, and how words are drawn."""
    parser.add_argument("checkpoint", help="a run folder, a model folder, or a hub id")
    parser.add_argument("--image", action="append", default=[], help="may be given again")
    parser.add_argument("--system", help="system message; by default the chat template's")
    add_quantize(parser)
    parser.add_argument("--max-new-tokens", type=whole(1), default=128)
    parser.add_argument("--temperature", type=temperature, default=0.0, help="0: likeliest")
    parser.add_argument("--top-p", type=share, default=1.0)
    parser.add_argument("--top-k", type=whole(0), default=0, help="0: all")
    parser.add_argument("--repetition-penalty", type=above_zero, default=1.0, help="1: none")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument(
        "--stop", action="append", default=[], type=words, help="text that ends an answer"
    )


def decoding(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "max_new_tokens": arguments.max_new_tokens,
        "stop": arguments.stop,
        "repetition_penalty": arguments.repetition_penalty,
        "temperature": arguments.temperature,
        "top_p": arguments.top_p,
        "top_k": arguments.top_k,
        "seed": arguments.seed,
    }


def read_image(path: str) -> bytes:
    from lightning_mono.data.images import decode
    from lightning_mono.errors import DataError

    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    decode(data, path)
    return data
