"""What all pages have in common: their style sheet, and how numbers are written in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from lightning_mono.evaluation.report import figures, words
from lightning_mono.evaluation.report.svg import figure_svg

WIDE, NARROW = 7.6, 3.7  # inches: charts for a page and for a telephone


def environment(*folders: Path) -> jinja2.Environment:
    """Make an environment that finds the report's templates and style sheet, and those in folders.

    What a template is given is escaped, but for the style sheet.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).parent, *folders]),
        autoescape=lambda name: name is not None and not name.endswith(".css"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    named = {f.__name__: f for f in (words.percent, words.count, words.duration, words.small)}
    environment.filters.update(named, part_name=figures.part_name)
    return environment


def chart(name: str, description: str, draw: Callable[[float], Figure]) -> dict[str, Markup]:
    """Draw a chart for wide and for narrow windows; the page shows one of them."""
    return {
        size: figure_svg(draw(width), f"{name}-{size}", size, description)
        for size, width in (("wide", WIDE), ("narrow", NARROW))
    }
