"""Tux Paint stamps (GPL-2+): 785 small cut-out photographs and drawings with English captions.

They ship in the Debian package ``tuxpaint-stamps-default``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_mono.data.sample import Exchange, Sample, Skipped, held_out
from lightning_mono.data.sources import packaged

FOLDER = "usr/share/tuxpaint/stamps"
QUESTION = "Describe the picture."
HELD_OUT = 0.1


@dataclass(frozen=True)
class Stamp:
    """One stamp that is a PNG.

    Attributes:
        name: its path without suffix, such as ``animals/mammals/tiger``.
        file: the picture, usually with transparency.
        caption: its English words; mirrored and repeated pictures share theirs.
    """

    name: str
    file: Path
    caption: str

    @property
    def split(self) -> str:
        """Where it belongs: one caption in ten is held out."""
        return "test" if held_out(self.caption, HELD_OUT) else "train"


def stamps(split: str) -> Iterator[Sample | Skipped]:
    """Every stamp that is a PNG, with its caption; the kind is its category.

    One caption in ten is held out: mirrored and repeated pictures share theirs.

    Raises:
        DataError: the package cannot be had, for one because there is no apt.
    """
    for stamp in read_stamps("tuxpaint"):
        if isinstance(stamp, Skipped):
            yield stamp
        elif stamp.split == split:
            exchange = Exchange(QUESTION, stamp.caption, stamp.name.split("/")[0])
            yield Sample(stamp.name, (stamp.file.read_bytes(),), (exchange,))


def read_stamps(source: str) -> Iterator[Stamp | Skipped]:
    """All stamps in order of their names; ``source`` is who asks, for messages.

    Raises:
        DataError: the package cannot be had, for one because there is no apt.
    """
    root = packaged.debian(source, "tuxpaint-stamps-default", FOLDER)
    for file in sorted(root.rglob("*.png")):
        words = file.with_suffix(".txt")
        if not words.is_file():
            continue  # the mirrored or second picture of a stamp
        name = file.relative_to(root).with_suffix("").as_posix()
        lines = words.read_text(encoding="utf-8", errors="replace").splitlines()
        caption = lines[0].strip() if lines else ""
        yield (
            Stamp(name, file, caption) if caption else Skipped(name, f"{words.name} has no caption")
        )
