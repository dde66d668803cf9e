"""The text of a piece of HTML, and whole figures by page kept on one side of a split."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_mono.data.sample import held_out


@dataclass(frozen=True)
class Figure:
    """A picture of a page.

    Attributes:
        page: the page's name; figures of a page belong together.
        file: the picture.
        caption: what is written beneath it.
        about: what the page says that it is about.
    """

    page: str
    file: Path
    caption: str
    about: str = ""


def plain(markup: str) -> str:
    """HTML without its tags, on one line; a tag before a comma leaves no space."""
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", markup)).split())
    return re.sub(r"([“(]) | (?=[”)]|[.,:;](?: |$))", r"\1", text)


def first(pattern: str, markup: str) -> str:
    """The text of a pattern's group where it is first found; empty where it is not."""
    found = re.search(pattern, markup, re.DOTALL)
    return plain(found[1]) if found else ""


def of_split(figures: Sequence[Figure], split: str, share: float) -> Iterator[Figure]:
    """Figures by page; of the held-out pages those whose picture and caption no other page has."""
    trains = [figure for figure in figures if not held_out(figure.page, share)]
    if split == "train":
        yield from trains
        return
    known = {key for figure in trains for key in (figure.file, figure.caption.lower())}
    for figure in figures:
        if held_out(figure.page, share) and not {figure.file, figure.caption.lower()} & known:
            yield figure
