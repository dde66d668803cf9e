"""``lightning-mono chat``."""

from __future__ import annotations

import argparse

from lightning_mono.cli.common import add_decoding, decoding, read_image

HELP = "Talk to a model in the terminal."
EXAMPLE = "lightning-mono chat runs/quickstart --image a.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_decoding(parser)


def run(arguments: argparse.Namespace) -> int:
    from lightning_mono.chat import chat
    from lightning_mono.inference import Assistant

    images = [read_image(path) for path in arguments.image]
    assistant = Assistant.from_pretrained(
        arguments.checkpoint, system=arguments.system, quantize=arguments.quantize
    )
    chat(assistant, images, read_image, **decoding(arguments))
    return 0
