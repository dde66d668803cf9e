"""Figures of the GIMP user manual (GFDL): screenshots, and pictures before and after a filter.

They ship in the Debian package ``gimp-help-en``.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from lightning_mono.data.sample import Exchange, Sample, Skipped
from lightning_mono.data.sources import packaged
from lightning_mono.data.sources.html_text import Figure, first, of_split, plain

FOLDER = "usr/share/gimp/2.0/help/en"
QUESTION = "What does the picture show?"
HELD_OUT = 0.1
MIN_PIXELS = 48  # the shorter side; what is smaller is an icon in a line of text

_FIGURE = re.compile(
    r'<div class="(?:informal)?figure">(.*?)<br class="figure-break"'
    r'|<div class="informalfigure">(.*?)</div>\s*</div>\s*</div>',
    re.DOTALL,
)
_IMAGE = re.compile(r'<img src="([^"]+)"(?: alt="([^"]*)")?')


def figures(split: str) -> Iterator[Sample | Skipped]:
    """Every figure with its caption; the kind is ``figure``.

    One page in ten is held out, less the figures whose picture or caption is on another page too.

    Raises:
        DataError: the package cannot be had, for one because there is no apt.
    """
    root = packaged.debian("gimp_help", "gimp-help-en", FOLDER)
    found = [figure for page in sorted(root.glob("*.html")) for figure in _figures(page)]
    for number, figure in enumerate(of_split(found, split, HELD_OUT)):
        identity = f"{figure.page}#{number}"
        if not figure.file.is_file():
            yield Skipped(identity, f"there is no {figure.file.name}")
        elif not figure.caption:
            yield Skipped(identity, f"{figure.file.name} has no caption")
        elif _is_picture(figure.file):
            exchange = Exchange(QUESTION, figure.caption, "figure")
            yield Sample(identity, (figure.file.read_bytes(),), (exchange,))


def _figures(page: Path) -> Iterator[Figure]:
    """Pictures of one page, a picture and caption once."""
    seen: set[tuple[str, str]] = set()
    for block in _FIGURE.finditer(page.read_text(encoding="utf-8", errors="replace")):
        markup = block[1] or block[2]
        title = re.sub(r"^Figure [A-Z\d.]+\s*", "", first(r'<p class="title">(.*?)</p>', markup))
        for image in _IMAGE.finditer(markup):
            below = markup[image.end() : image.end() + 600]
            caption = _joined(title, first(r'<div class="caption">(.*?)</div>', below))
            caption = caption or plain(html.unescape(image[2] or ""))
            if (image[1], caption) not in seen:
                seen.add((image[1], caption))
                yield Figure(page.stem, page.parent / image[1], caption)


def _joined(title: str, caption: str) -> str:
    """The figure's title with what is written under the one picture of several."""
    if caption in title:
        return title
    return f"{title}: {caption}" if title else caption


def _is_picture(file: Path) -> bool:
    with Image.open(file) as image:
        return min(image.size) >= MIN_PIXELS
