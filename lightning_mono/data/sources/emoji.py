"""Emoji in three styles: 1,914 concepts with names, drawn thrice by other hands.

Names and groups are those of ``emojibase-data`` (MIT). The styles: ``fluent``, renders in 3D (MIT);
``twemoji``, flat drawings (graphics CC BY 4.0, Twitter and other contributors); ``noto``, drawings
of 64 pixels (Apache-2.0), which are 74 MB to fetch. All are npm packages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_mono.data.sample import Exchange, Sample, Skipped, held_out
from lightning_mono.data.sources import packaged
from lightning_mono.errors import DataError

QUESTION = "What is in the picture?"
HELD_OUT = 0.1
PIXELS = 128  # side of a drawing that is made from vectors
_COMPONENTS = 2  # the group of skin tones and hair, which are no pictures of their own


@dataclass(frozen=True)
class Style:
    """Who drew the pictures: an npm package, and where its files are."""

    package: str
    version: str
    sha256: str
    files: str


NAMES = Style(
    "emojibase-data",
    "17.0.0",
    "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    "en/*.json",
)
STYLES = {
    "fluent": Style(
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        "assets/*.webp",
    ),
    "twemoji": Style(
        "@twemoji/svg",
        "15.0.0",
        "1d2907557a422c7c4e3feca50ef915c39da1db3d76b4a4d7e73fb59bce4403c3",
        "*.svg",
    ),
    "noto": Style(
        "emoji-datasource-google",
        "16.0.0",
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        "img/google/64/*.png",
    ),
}
TRAIN_STYLES = ("fluent", "twemoji")
TEST_STYLES = ("noto",)


def pictures(split: str, styles: Sequence[str] = ()) -> Iterator[Sample | Skipped]:
    """Every concept in each style that draws it; the kind is its group, such as animals & nature.

    One concept in ten is held out, whatever its style. Two styles train and the third is held out
    too, so that the test shows new things by a new hand; ``split: train, styles: [noto]`` shows
    known things by a new hand, ``split: test, styles: [fluent]`` new things by a known one.

    Args:
        split: ``train`` or ``test``.
        styles: of fluent, twemoji and noto; by default the first two train, and the last tests.

    Raises:
        DataError: no such style, or a package cannot be had, for one because there is no npm.
    """
    chosen = tuple(styles) or (TRAIN_STYLES if split == "train" else TEST_STYLES)
    drawn = {style: _drawings(style) for style in chosen}
    for code, label, group in _concepts():
        if held_out(label, HELD_OUT) == (split == "test"):
            for style in chosen:
                if code in drawn[style]:
                    picture = _encoded(drawn[style][code])
                    yield Sample(f"{style}/{code}", (picture,), (Exchange(QUESTION, label, group),))


def _concepts() -> Iterator[tuple[str, str, str]]:
    """(code points, name, group) of every emoji without its skin tones."""
    folder = packaged.npm("emoji", NAMES.package, NAMES.version, NAMES.sha256) / "en"
    try:
        entries = json.loads((folder / "data.json").read_text(encoding="utf-8"))
        words = json.loads((folder / "messages.json").read_text(encoding="utf-8"))
        groups = {group["order"]: group["message"] for group in words["groups"]}
        for entry in entries:
            if entry.get("group", _COMPONENTS) != _COMPONENTS:
                yield _code(entry["hexcode"]), entry["label"], groups[entry["group"]]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"source emoji: cannot read {folder}: {error}; delete it") from error


def _drawings(style: str) -> dict[str, Path]:
    """Code points -> file."""
    if style not in STYLES:
        raise DataError(f"source emoji: no style {style!r}; there are {', '.join(STYLES)}")
    it = STYLES[style]
    folder = packaged.npm("emoji", it.package, it.version, it.sha256)
    return {_code(file.stem): file for file in sorted(folder.glob(it.files))}


def _code(name: str) -> str:
    """Code points as all packages write them: some leave out the mark that asks for colour."""
    return name.lower().replace("-fe0f", "")


def _encoded(file: Path) -> bytes:
    """The file, or the PNG that a vector drawing makes."""
    if file.suffix != ".svg":
        return file.read_bytes()
    try:
        import resvg_py
    except ImportError:
        raise DataError(
            "source emoji: style twemoji is drawn from vectors; "
            "pip install 'lightning-mono[documents]'"
        ) from None
    return bytes(resvg_py.svg_to_bytes(svg_path=str(file), width=PIXELS))
