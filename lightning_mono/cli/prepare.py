"""``lightning-mono prepare``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lightning_mono.arguments import share, whole
from lightning_mono.cli.common import add_json

HELP = "Images and words to chunks that a recipe reads: sources: {x: {path: OUT}}."
EXAMPLE = "lightning-mono prepare llava_v1_5_mix665k.json data/sft --images images --workers 8"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "source",
        type=local,
        help="a file, a folder, a pattern, or one with braces ({0000..0099}.tar)",
    )
    add("out", type=local, help="a new folder; one that was begun is gone on with")
    add(
        "--format",
        choices=("llava", "webdataset", "table"),
        help="LLaVA's JSON or JSON Lines, tar files, CSV/TSV/Parquet; by default by the file names",
    )
    add("--images", metavar="DIR", help="where image names start; by default beside the source")
    add("--image-column", metavar="NAME", help="of a table; by default image, path and the like")
    add("--caption-column", metavar="NAME", help="of a table; by default caption, text, title, ...")
    add("--workers", type=whole(1), default=1, metavar="N", help="processes; 1 by default")
    add(
        "--held-out",
        type=share,
        metavar="SHARE",
        help="share of the pictures that goes to OUT/test; the others go to OUT/train",
    )
    add(
        "--max-characters",
        type=whole(1),
        default=1_000_000,
        metavar="N",
        help="a sample with more text is skipped as too long; 1,000,000 by default",
    )
    add_json(parser)


def local(text: str) -> str:
    """An argument type: a path on this machine."""
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"{text} is an address; prepare from a folder into a folder, then copy that to the "
            "store, from which recipes read it"
        )
    return text


def run(arguments: argparse.Namespace) -> int:
    import time

    from tqdm import tqdm

    from lightning_mono.data.parts import Limits
    from lightning_mono.data.prepare import prepare_into
    from lightning_mono.data.report import in_words, report
    from lightning_mono.data.sources import SourceSpec, format_of

    given = {
        "images": arguments.images,
        "image_column": arguments.image_column,
        "caption_column": arguments.caption_column,
        "held_out_share": arguments.held_out,
    }
    options = {key: value for key, value in given.items() if value is not None}
    name = arguments.format or format_of(arguments.source)
    out, limits = Path(arguments.out), Limits(characters=arguments.max_characters)
    folders = {"train": out}
    if arguments.held_out is not None:
        folders = {split: out / split for split in ("train", "test")}
    reports = []
    for split, folder in folders.items():
        source = SourceSpec(name, split, {"path": arguments.source, **options})
        started = time.monotonic()
        with tqdm(unit=" records", disable=None, leave=False) as bar:
            workers = arguments.workers
            prepare_into(source, folder, workers=workers, limits=limits, progress=bar.update)
        reports.append(report(folder, time.monotonic() - started))
    print(json.dumps(reports) if arguments.json else in_words(reports))
    return 0
