"""``lightning-mono convert``."""

from __future__ import annotations

import argparse
import json

from lightning_mono.arguments import above_zero, whole
from lightning_mono.cli.common import add_json

HELP = "Write a model anew: another dtype, other shards, another image size, or out of GGUF."
EXAMPLE = "lightning-mono convert OpenGVLab/Mono-InternVL-2B mono-2b --dtype bfloat16"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="a model folder, run folder, hub id, or GGUF file")
    parser.add_argument("target", help="a new folder")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="by default as stored")
    parser.add_argument("--image-size", type=whole(1), help="side of a tile in pixels")
    parser.add_argument("--shard-gb", type=above_zero, default=5.0, help="most of one file")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    import torch

    from lightning_mono.convert import convert

    written = convert(
        arguments.source,
        arguments.target,
        dtype=getattr(torch, arguments.dtype) if arguments.dtype else None,
        image_size=arguments.image_size,
        shard_bytes=int(arguments.shard_gb * 1e9),
    )
    if arguments.json:
        print(json.dumps(written))
    else:
        size, count = written["bytes"] / 1e6, written["parameters"]
        print(f"{written['folder']}: {count:,} parameters, {size:,.1f} MB on disk")
    return 0
