"""``lightning-mono generate``."""

from __future__ import annotations

import argparse
import json

from lightning_mono.cli.common import add_decoding, add_json, decoding, read_image

HELP = "One answer to one prompt."
EXAMPLE = 'lightning-mono generate runs/quickstart --image a.png --prompt "what shape is this?"'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt", required=True, help="what to ask")
    add_decoding(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from lightning_mono.inference import Assistant

    images = [read_image(path) for path in arguments.image]
    assistant = Assistant.from_pretrained(
        arguments.checkpoint, system=arguments.system, quantize=arguments.quantize
    )
    pieces = assistant.stream(arguments.prompt, images, **decoding(arguments))
    if arguments.json:
        answer = "".join(pieces)
        print(json.dumps({"prompt": arguments.prompt, "image": arguments.image, "answer": answer}))
        return 0
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    return 0
