"""Tux Paint stamps (GPL-2+): 785 small cut-out photographs and drawings with English captions.

They ship in the Debian package ``tuxpaint-stamps-default``.
"""

from __future__ import annotations

from collections.abc import Iterator

from lightning_mono import assets
from lightning_mono.data.sample import Exchange, Sample, Skipped, held_out
from lightning_mono.errors import AssetError, DataError

FOLDER = "usr/share/tuxpaint/stamps"
QUESTION = "Describe the picture."
HELD_OUT = 0.1


def stamps(split: str) -> Iterator[Sample | Skipped]:
    """Every stamp that is a PNG, with its caption; the kind is its category.

    One caption in ten is held out: mirrored and repeated pictures share theirs.

    Raises:
        DataError: the package cannot be had, for one because there is no apt.
    """
    try:
        root = assets.debian("tuxpaint-stamps-default", FOLDER) / FOLDER
    except AssetError as error:
        raise DataError(f"source tuxpaint needs apt (Debian or Ubuntu): {error}") from error
    for file in sorted(root.rglob("*.png")):
        words = file.with_suffix(".txt")
        if not words.is_file():
            continue  # the mirrored or second picture of a stamp
        name = file.relative_to(root).with_suffix("").as_posix()
        lines = words.read_text(encoding="utf-8", errors="replace").splitlines()
        caption = lines[0].strip() if lines else ""
        if not caption:
            yield Skipped(name, f"{words.name} has no caption")
        elif held_out(caption, HELD_OUT) == (split == "test"):
            exchange = Exchange(QUESTION, caption, name.split("/")[0])
            yield Sample(name, (file.read_bytes(),), (exchange,))
