"""GCompris pictures: word drawings, photographs with a paragraph each, photographs by category.

They ship in the Debian package ``gcompris-qt-data`` (GPL-3+ as a whole; most photographs are in the
public domain or CC0, some CC BY-SA: the README of each folder in the archives says which).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from lightning_mono.data.sample import Exchange, Sample, Skipped, held_out
from lightning_mono.data.sources import packaged
from lightning_mono.data.sources.qt_resources import read_resources
from lightning_mono.errors import DataError

FOLDER = "usr/share/gcompris-qt/rcc"
ROOT = "/gcompris/src/activities"
HELD_OUT = 0.1
WORD_QUESTION = "What is in the picture?"
NAME_QUESTION = "What is the name of it?"
PARAGRAPH_QUESTION = "Describe the picture in detail."
PHOTO_QUESTION = "Is it a fish, a monument, a tool or renewable energy?"
ACTIVITIES = ("monuments", "world_animals", "farm_animals", "world_music")
CATEGORIES = {
    "fishes": "a fish",
    "monuments": "a monument",
    "renewable": "renewable energy",
    "tools": "a tool",
}
_STRING = r'((?:[^"\\]|\\.|"\s*\+\s*")*)'  # of QML, which may be joined from several with +


def words(split: str) -> Iterator[Sample | Skipped]:
    """116 drawings with their English words; one word in ten is held out.

    Raises:
        DataError: the package cannot be had or read.
    """
    archive = _archive("gcompris_words", "lang")
    try:
        names = json.loads(archive[f"{ROOT}/lang/resource/content-en.json"])
    except (KeyError, ValueError) as error:
        raise DataError(f"source gcompris_words: lang.rcc has no list of words: {error}") from error
    for path, picture in sorted(archive.items()):
        if path.endswith(".webp") and "/words" in path:
            stem = Path(path).stem
            word = names.get(f"{stem}.ogg", stem)
            if held_out(word, HELD_OUT) == (split == "test"):
                yield Sample(stem, (picture,), (Exchange(WORD_QUESTION, word, "word"),))


def paragraphs(split: str) -> Iterator[Sample | Skipped]:
    """82 photographs with a paragraph and most with a name; the kind is the activity.

    One name in ten is held out. Pictures of music have the name of a country, which nobody could
    see in them: they come with their paragraph alone.

    Raises:
        DataError: the package cannot be had or read.
    """
    for activity in ACTIVITIES:
        archive = _archive("gcompris_paragraphs", f"explore_{activity}")
        for path, text in sorted(archive.items()):
            if re.search(r"/board\d+\.qml$", path):
                board = text.decode("utf-8", errors="replace")
                for block in re.findall(r"\{([^{}]*\"image2?\"[^{}]*)\}", board):
                    yield from _described(block, archive, activity, split)


def photos(split: str) -> Iterator[Sample | Skipped]:
    """123 photographs of four categories, with one question; for evaluation, so test alone.

    Raises:
        DataError: the package cannot be had or read, or training is asked for.
    """
    if split != "test":
        raise DataError("source gcompris_photos is for evaluation; set its split to test")
    folder = f"{ROOT}/categorization/resource/images"
    for path, picture in sorted(_archive("gcompris_photos", "categorization").items()):
        category, _, name = path.removeprefix(f"{folder}/").partition("/")
        if category in CATEGORIES and name.endswith((".webp", ".jpg", ".png")):
            exchange = Exchange(PHOTO_QUESTION, CATEGORIES[category], "category")
            yield Sample(f"{category}/{Path(name).stem}", (picture,), (exchange,))


def _archive(source: str, name: str) -> dict[str, bytes]:
    folder = packaged.debian(source, "gcompris-qt-data", FOLDER)
    return read_resources(folder / f"{name}.rcc")


def _described(
    block: str, archive: dict[str, bytes], activity: str, split: str
) -> Iterator[Sample | Skipped]:
    """The sample that one entry of a board makes, if it is in the split."""
    name = _field(block, "title") or _field(block, "text2")
    concept = name.split(",")[0].lower()  # "Taj Mahal" and "Taj Mahal, India" are one
    if held_out(concept, HELD_OUT) != (split == "test"):
        return
    identity = f"{activity}/{concept}"
    file = (_field(block, "image2") or _field(block, "image")).replace("qrc:", "")
    text = _field(block, "text")
    if file not in archive or not text:
        yield Skipped(identity, f"has no {'text' if file in archive else f'picture {file}'}")
        return
    described = Exchange(PARAGRAPH_QUESTION, text, activity)
    named = (Exchange(NAME_QUESTION, name, activity),) if activity != "world_music" else ()
    yield Sample(identity, (archive[file],), (*named, described))


def _field(block: str, key: str) -> str:
    """A string of an entry, or what ``qsTr`` marks for translation; empty where there is none."""
    found = re.search(rf'"{key}"\s*:\s*(?:qsTr\()?"{_STRING}"', block)
    if not found:
        return ""
    joined = re.sub(r'"\s*\+\s*"', "", found[1])
    return " ".join(joined.replace('\\"', '"').replace("\\n", " ").split())
