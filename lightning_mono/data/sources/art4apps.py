"""Art4Apps word pictures (CC BY-SA): 585 drawings on white, each of one English word.

They ship in the Debian package ``pysiogame``.
"""

from __future__ import annotations

from collections.abc import Iterator

from lightning_mono.data.sample import Exchange, Sample, Skipped, held_out
from lightning_mono.data.sources import packaged

FOLDER = "usr/share/games/pysiogame/res/images/art4apps"
QUESTION = "What is in the picture?"
HELD_OUT = 0.1


def pictures(split: str) -> Iterator[Sample | Skipped]:
    """Every picture with its word; the kind is its category, such as animals or actions.

    One word in ten is held out.

    Raises:
        DataError: the package cannot be had, for one because there is no apt.
    """
    root = packaged.debian("art4apps", "pysiogame", FOLDER)
    for file in sorted(root.rglob("*.jpg")):
        word = file.stem.replace("_", " ")
        if held_out(word, HELD_OUT) == (split == "test"):
            category = file.parent.name
            exchange = Exchange(QUESTION, word, category)
            yield Sample(f"{category}/{file.stem}", (file.read_bytes(),), (exchange,))
