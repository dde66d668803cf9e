"""Figures in a notebook, with words for those who do not see them."""

from __future__ import annotations

import base64
import html
import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_mono.style import house_style


def show(figure: Figure, alt: str, *, dpi: int = 100) -> None:
    """Displays a figure in a notebook with its alternative text.

    The output is an HTML image with the picture inside, because JupyterLab and nbconvert keep the
    alternative text of no other; where HTML is not shown, the text stands in its place.

    Args:
        alt: what the figure shows, in words.
        dpi: pixels an inch of the figure; it is shown at its size for 100 of them.

    Raises:
        ValueError: the text is empty.
    """
    from IPython.display import display

    if not alt.strip():
        raise ValueError("a figure in a notebook needs a text that says what it shows")
    buffer = io.BytesIO()
    with house_style():
        FigureCanvasAgg(figure)
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    width = round(100 * figure.get_figwidth())
    image = (
        f'<img alt="{html.escape(alt)}" width="{width}" style="max-width: 100%" '
        f'src="data:image/png;base64,{encoded}">'
    )
    display({"text/html": image, "text/plain": alt}, raw=True)
