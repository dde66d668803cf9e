"""``lightning-mono maps``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_mono.arguments import whole
from lightning_mono.cli.common import add_json, read_image
from lightning_mono.errors import DataError, RecipeError

if TYPE_CHECKING:
    from lightning_mono.attention import Look

HELP = "What a model looks at as it answers: pictures, and a page with sliders."
EXAMPLE = (
    "lightning-mono maps runs/quickstart --image a.png "
    '--prompt "what shape is this?" --layers 0,3 --out maps'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="a run folder, a model folder, or a hub id")
    parser.add_argument("--image", action="append", default=[], help="may be given again")
    parser.add_argument("--prompt", required=True, help="what to ask")
    parser.add_argument("--system", help="system message; by default the chat template's")
    parser.add_argument(
        "--layers",
        help="0,11,23 or all, first:N, last:N, every:N, A-B; by default first, middle and last",
    )
    parser.add_argument(
        "--token", type=whole(0), default=0, help="of the answer, from 0; for the single pictures"
    )
    parser.add_argument("--max-new-tokens", type=whole(1), default=16)
    parser.add_argument("--against", metavar="CHECKPOINT", help="also draw the difference to this")
    parser.add_argument("--out", default="maps", help="folder to write to; by default maps")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from lightning_mono.inference import Assistant

    images = [read_image(path) for path in arguments.image]
    assistant = Assistant.from_pretrained(arguments.checkpoint, system=arguments.system)
    layers = _layers(arguments.layers, assistant.model.config.decoder.layers)
    seen = _look(assistant, arguments, images, layers)
    if arguments.token >= len(seen.said):
        raise DataError(
            f"--token {arguments.token}: the answer has {len(seen.said)} tokens, "
            f"0 to {len(seen.said) - 1}"
        )
    out = Path(arguments.out)
    files = _draw(seen, arguments, out)
    if arguments.against is not None:
        files += _compare(seen, arguments, images, layers, out)
    _report(seen, arguments, files)
    return 0


def _layers(words: str | None, count: int) -> list[int]:
    """The layers that ``--layers`` names.

    Raises:
        RecipeError: it names none, or one that the model does not have.
    """
    from lightning_mono.placement import layers_of

    if words is None:
        return sorted({0, count // 2, count - 1})
    parts = words.split(",")
    numbers = [int(part) for part in parts if part.strip().isdecimal()]
    try:
        chosen = layers_of(numbers if len(numbers) == len(parts) else words, count)
    except ValueError as error:
        raise RecipeError(f"--layers {words}: {error}") from error
    if not chosen:
        raise RecipeError(f"--layers {words}: names no layer; the model has 0 to {count - 1}")
    return list(chosen)


def _look(
    assistant: Any, arguments: argparse.Namespace, images: list[bytes], layers: list[int]
) -> Look:
    from lightning_mono.attention import look

    new = arguments.max_new_tokens
    return look(assistant, arguments.prompt, images, layers=layers, max_new_tokens=new)


def _draw(seen: Look, arguments: argparse.Namespace, out: Path) -> list[Path]:
    """Writes the pictures and the page; returns their paths."""
    from lightning_mono.attention import figures
    from lightning_mono.attention.page import write_page

    token = arguments.token
    drawn = {}
    for layer in seen.layers:
        drawn[f"map-layer_{layer:02d}"] = figures.map_figure(seen, layer)
        if seen.pictures:
            single = f"layer_{layer:02d}-token_{token}"
            drawn[f"overlay-{single}"] = figures.overlay_figure(seen, layer, token)
            drawn[f"heads-{single}"] = figures.heads_figure(seen, layer, token)
            drawn[f"film-layer_{layer:02d}"] = figures.film_figure(seen, layer)
    if seen.pictures:
        drawn[f"rollout-token_{token}"] = figures.rollout_figure(seen, token)
    if seen.measures:
        drawn["measures"] = figures.measures_figure(seen)
    files = [out / f"{name}.png" for name in drawn]
    for path, figure in zip(files, drawn.values(), strict=True):
        figures.save_figure(figure, path)
    page = out / "index.html"
    write_page(seen, page, prompt=arguments.prompt, model=arguments.checkpoint)
    return [page, *files]


def _compare(
    after: Look, arguments: argparse.Namespace, images: list[bytes], layers: list[int], out: Path
) -> list[Path]:
    """Draws how each layer differs from another checkpoint's.

    Raises:
        DataError: the other model reads the same question as other tokens, or has fewer layers.
    """
    from lightning_mono.attention import figures
    from lightning_mono.inference import Assistant

    other = Assistant.from_pretrained(arguments.against, system=arguments.system)
    names = (arguments.against, arguments.checkpoint)
    files = []
    try:
        before = _look(other, arguments, images, layers)
        for layer in layers:
            files.append(out / f"difference-layer_{layer:02d}.png")
            figure = figures.difference_figure(before, after, layer, names)
            figures.save_figure(figure, files[-1])
    except ValueError as error:
        raise DataError(f"--against {arguments.against}: {error}") from error
    return files


def _report(seen: Look, arguments: argparse.Namespace, files: list[Path]) -> None:
    shares = {layer: seen.image_share(seen.row(layer, arguments.token)) for layer in seen.layers}
    if arguments.json:
        found = {
            "prompt": arguments.prompt,
            "image": arguments.image,
            "answer": seen.answer,
            "said": seen.said,
            "token": arguments.token,
            "image_share": {str(layer): round(share, 6) for layer, share in shares.items()},
            "measures": {k: v.mean(1).round(6).tolist() for k, v in seen.measures.items()},
            "files": [str(path) for path in files],
        }
        print(json.dumps(found))
        return
    print(f"says: {seen.answer}")
    for layer, share in shares.items():
        print(f"layer {layer}: {share:.1%} of its attention is on pictures")
    print(f"{len(files)} files; open {files[0]}")
