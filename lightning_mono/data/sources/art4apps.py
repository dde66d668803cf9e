"""Art4Apps word pictures (CC BY-SA): 585 drawings on white, each of one English word.

They ship in the Debian package ``pysiogame``.
"""

from __future__ import annotations

from collections.abc import Iterator

from lightning_mono import assets
from lightning_mono.data.sample import Exchange, Sample, Skipped, held_out
from lightning_mono.errors import AssetError, DataError

FOLDER = "usr/share/games/pysiogame/res/images/art4apps"
QUESTION = "What is in the picture?"
HELD_OUT = 0.1


def pictures(split: str) -> Iterator[Sample | Skipped]:
    """Every picture with its word; the kind is its category, such as animals or actions.

    One word in ten is held out.

    Raises:
        DataError: the package cannot be had, for one because there is no apt.
    """
    try:
        root = assets.debian("pysiogame", FOLDER) / FOLDER
    except AssetError as error:
        raise DataError(f"source art4apps needs apt (Debian or Ubuntu): {error}") from error
    for file in sorted(root.rglob("*.jpg")):
        word = file.stem.replace("_", " ")
        if held_out(word, HELD_OUT) == (split == "test"):
            category = file.parent.name
            exchange = Exchange(QUESTION, word, category)
            yield Sample(f"{category}/{file.stem}", (file.read_bytes(),), (exchange,))
