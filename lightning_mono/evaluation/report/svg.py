"""Charts and pictures as text that a page can hold, so that the page is one file."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass

from markupsafe import Markup, escape
from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError

from lightning_mono.errors import DataError
from lightning_mono.style import ROLES, house_style

PAPER = "#ffffff"  # the halo around marks
SMALL = 160  # pixels


def figure_svg(figure: Figure, name: str, css: str, description: str) -> Markup:
    """Draw a chart as an SVG element whose colours and typeface are the page's.

    Args:
        figure: the chart.
        name: unique in the page; the element's ids begin with it.
        css: the element's class.
        description: what the chart shows, for those who do not see it.
    """
    buffer = io.StringIO()
    with house_style():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans)", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1, flags=re.DOTALL)
    for colour, role in {**ROLES, PAPER: "paper"}.items():
        svg = svg.replace(colour, f"var(--{role})")
    opening = f'<svg class="{css}" role="img" aria-label="{escape(description)}"'
    return Markup(svg.replace("<svg", opening, 1))


@dataclass(frozen=True)
class Picture:
    """A picture inside the page."""

    uri: str
    small: bool  # shown larger than it is, so its pixels should stay sharp


def picture(encoded: bytes, name: str, longest_side: int = 320) -> Picture:
    """Embed an encoded picture, made smaller where it is large.

    Raises:
        DataError: the bytes are not a picture.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            kind, longest = image.format, max(image.size)
            if longest <= longest_side and kind in ("PNG", "JPEG", "GIF", "WEBP"):
                return Picture(data_uri(encoded, f"image/{kind.lower()}"), longest < SMALL)
            shown = image.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"picture {name}: cannot be decoded; prepare its source again") from error
    shown.thumbnail((longest_side, longest_side))
    return Picture(png_uri(shown), longest < SMALL)


def png_uri(image: Image.Image) -> str:
    """Return a picture as a PNG data URI."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return data_uri(buffer.getvalue(), "image/png")


def data_uri(content: bytes, kind: str) -> str:
    """Return bytes as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
