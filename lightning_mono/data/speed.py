"""How fast one core prepares pictures and cuts them into tiles.

``python -m lightning_mono.data.speed`` measures it on real pictures and prints the table in
``docs/data.md``; names of other sources (``lightning-mono ls``) may follow. Seconds are those of
the processor, not of the clock: what else runs on the machine does not count.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lightning_mono.bench.kernels import device_name
from lightning_mono.data.images import ImageProcessor
from lightning_mono.data.prepare import prepare
from lightning_mono.data.sources import SourceSpec
from lightning_mono.data.store import Store
from lightning_mono.errors import DataError, UserError

SOURCES = ("gcompris_paragraphs", "gimp_help", "art4apps")
"""Photographs of most of a megapixel, screenshots, drawings of 200 x 200 pixels."""

BUDGETS = {
    "one tile of 448": ImageProcessor(448),
    "6 of 448 and thumbnail": ImageProcessor(448, 6, thumbnail=True),
    "12 of 448 and thumbnail": ImageProcessor(448, 12, thumbnail=True),
}
CUT = 64  # samples whose pictures are cut
SECONDS = 2.0  # of each measurement, at least


def seconds(work: Callable[[], object]) -> float:
    """Seconds of the processor that a round of some work takes, over ``SECONDS`` of rounds."""
    rounds, start = 0, time.process_time()
    while (spent := time.process_time() - start) < SECONDS:
        work()
        rounds += 1
    return spent / rounds


def prepared(name: str, folder: Path) -> tuple[Store, float]:
    """The training pictures of a source, and the seconds to read, check and write them all.

    Raises:
        DataError, AssetError: there is no such source, it has no pictures, or cannot be had.
    """
    next(SourceSpec(name).read())  # what has to be fetched is here then
    start = time.process_time()
    store = Store(prepare(SourceSpec(name), folder))
    spent = time.process_time() - start
    if not store.manifest["images"]:
        raise DataError(f"source {name} has no pictures")
    return store, spent


def cutting(pictures: Sequence[bytes], images: ImageProcessor) -> tuple[int, float]:
    """Tiles of pictures within a budget, and the seconds to decode, cut and normalise them."""
    tiles = sum(len(images.tiles(picture)) for picture in pictures)

    def work() -> None:
        for picture in pictures:
            images.normalise(images.tiles(picture))

    return tiles, seconds(work)


def main(names: Sequence[str]) -> None:
    """Prints what one core does in a second, a table for each of the two tasks."""
    print(f"{device_name(torch.device('cpu'))}, one core\n")
    with tempfile.TemporaryDirectory() as folder:
        stores = {name: prepared(name, Path(folder)) for name in names or SOURCES}
        print("| prepare | images | megapixels each | images/s | MB/s |\n|---|---|---|---|---|")
        for name, (store, spent) in stores.items():
            sizes = [size for n in range(len(store)) for size in store[n].sizes]
            pixels = sum(width * height for width, height in sizes) / len(sizes) / 1e6
            rates = f"{len(sizes) / spent:,.0f} | {store.manifest['bytes'] / spent / 1e6:,.1f}"
            print(f"| {name} | {len(sizes):,} | {pixels:.3f} | {rates} |", flush=True)
        print("\n| decode, cut, normalise | budget | tiles each | images/s | tiles/s |")
        print("|---|---|---|---|---|")
        for name, (store, _) in stores.items():
            pictures = [each for n in range(min(len(store), CUT)) for each in store[n].images]
            for budget, images in BUDGETS.items():
                tiles, spent = cutting(pictures, images)
                rates = f"{len(pictures) / spent:,.0f} | {tiles / spent:,.0f}"
                mean = tiles / len(pictures)
                print(f"| {name} | {budget} | {mean:.1f} | {rates} |", flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
