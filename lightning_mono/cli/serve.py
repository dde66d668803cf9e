"""``lightning-mono serve``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lightning_mono.arguments import whole
from lightning_mono.cli.common import add_quantize
from lightning_mono.errors import UserError

HELP = "A model behind OpenAI's chat API, with images, for many at a time."
EXAMPLE = "lightning-mono serve runs/quickstart --port 8000 --slots 16"
KEY = "LIGHTNING_MONO_API_KEY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="a run folder, a model folder, or a hub id")
    parser.add_argument("--name", help="what clients call the model; by default the folder's name")
    parser.add_argument("--host", choices=("127.0.0.1", "0.0.0.0", "::"), default="127.0.0.1")
    parser.add_argument("--port", type=_port, default=8000, help="1024 to 65535")
    parser.add_argument(
        "--api-key-file",
        metavar="FILE",
        help=f"holds the key that clients have to send; or set {KEY}",
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:N; by default a GPU where there is one")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="by default as stored")
    add_quantize(parser)
    parser.add_argument("--system", help="system message of conversations without one")
    parser.add_argument("--slots", type=whole(1), default=16, help="answers at the same time")
    parser.add_argument("--queue", type=whole(0), default=64, help="requests that may wait")
    parser.add_argument(
        "--context",
        type=whole(2),
        help="tokens of prompt and answer; by default the model's, 4096 at most",
    )
    parser.add_argument("--max-prompt-tokens", type=whole(1), help="by default the context")
    parser.add_argument("--max-new-tokens", type=whole(1), default=1024)
    parser.add_argument("--max-images", type=whole(0), default=16, help="of a request")
    parser.add_argument("--max-image-mb", type=whole(1), default=10, help="of a file, in MiB")
    parser.add_argument("--max-image-pixels", type=whole(1), default=36_000_000)
    parser.add_argument("--max-body-mb", type=whole(1), default=32, help="of a request, in MiB")
    parser.add_argument("--uploads-mb", type=whole(0), default=256, help="kept in all, in MiB")
    parser.add_argument("--uploads-seconds", type=whole(1), default=3600, help="each is kept")
    parser.add_argument(
        "--prefix-mb",
        type=whole(0),
        default=256,
        help="keys and values kept of prompts, for those that begin alike, in MiB; 0: none",
    )
    parser.add_argument(
        "--allow-remote", action="store_true", help="fetch images from public addresses"
    )


def run(arguments: argparse.Namespace) -> int:
    try:
        from lightning_mono.server.server import serve
        from lightning_mono.server.settings import MIB, Limits, Settings
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("lightning_mono"):
            raise
        raise UserError(f"serve needs {error.name}; pip install 'lightning-mono[serve]'") from error
    settings = Settings(
        checkpoint=arguments.checkpoint,
        name=arguments.name or Path(arguments.checkpoint).resolve().name,
        host=arguments.host,
        port=arguments.port,
        device=arguments.device,
        dtype=arguments.dtype,
        quantize=arguments.quantize,
        system=arguments.system,
        context=arguments.context,
        prefix_bytes=arguments.prefix_mb * MIB,
        allow_remote=arguments.allow_remote,
        api_key=_key(arguments.api_key_file),
        limits=Limits(
            body_bytes=arguments.max_body_mb * MIB,
            image_bytes=arguments.max_image_mb * MIB,
            image_pixels=arguments.max_image_pixels,
            images=arguments.max_images,
            prompt_tokens=arguments.max_prompt_tokens,
            new_tokens=arguments.max_new_tokens,
            slots=arguments.slots,
            queue=arguments.queue,
            files_bytes=arguments.uploads_mb * MIB,
            file_seconds=arguments.uploads_seconds,
        ),
    )
    if settings.api_key is None and settings.host != "127.0.0.1":
        print(f"warning: anyone who reaches {settings.host} may ask; set {KEY}", file=sys.stderr)
    serve(settings)
    return 0


def _port(text: str) -> int:
    value = int(text)
    if not 1024 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text} must be from 1024 to 65535")
    return value


def _key(path: str | None) -> str | None:
    """The API key, from a file or the environment: other users of a machine see arguments."""
    if path is None:
        return os.environ.get(KEY) or None
    try:
        key = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise UserError(f"--api-key-file {path}: cannot be read") from error
    if not key:
        raise UserError(f"--api-key-file {path}: is empty")
    return key
