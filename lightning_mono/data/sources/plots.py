"""Plots of scikit-learn's examples (BSD-3-Clause) with their titles and what they are about.

They ship in the Debian package ``python-sklearn-doc``.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from lightning_mono.data.sample import Exchange, Sample, Skipped
from lightning_mono.data.sources import packaged
from lightning_mono.data.sources.html_text import Figure, first, of_split, plain

FOLDER = "usr/share/doc/python-sklearn-doc/html/auto_examples"
TITLE_QUESTION = "What is the title of the plot?"
ABOUT_QUESTION = "What is the plot about?"
HELD_OUT = 0.1

_IMAGE = re.compile(r'<img src="([^"]+sphx_glr_plot[^"]+)"[^>]*?alt="([^"]*)"')


def plots(split: str) -> Iterator[Sample | Skipped]:
    """Every plot with two questions; the kinds are ``title`` and ``about``.

    One example in ten is held out, less the plots whose title another example has too. A plot
    without titles, whose text would be the name of its file, is asked what it is about alone.

    Raises:
        DataError: the package cannot be had, for one because there is no apt.
    """
    root = packaged.debian("plots", "python-sklearn-doc", FOLDER)
    found = [figure for page in sorted(root.rglob("plot_*.html")) for figure in _plots(page)]
    for figure in of_split(found, split, HELD_OUT):
        identity = figure.file.stem.removeprefix("sphx_glr_plot_")
        if not figure.file.is_file():
            yield Skipped(identity, f"there is no {figure.file.name}")
            continue
        exchanges = [Exchange(ABOUT_QUESTION, figure.about, "about")] if figure.about else []
        if figure.caption != figure.page.replace("_", " "):
            exchanges.insert(0, Exchange(TITLE_QUESTION, figure.caption, "title"))
        yield Sample(identity, (figure.file.read_bytes(),), tuple(exchanges))


def _plots(page: Path) -> Iterator[Figure]:
    markup = page.read_text(encoding="utf-8", errors="replace")
    about = first(r"<h1>(.*?)<", markup)
    paragraph = first(r"</h1>\s*<p>(.*?)</p>", markup)
    if paragraph:
        about = f"{about}. {paragraph}"
    for source, title in _IMAGE.findall(markup):
        file = (page.parent / source).resolve()
        yield Figure(page.stem, file, plain(html.unescape(title)), about)
