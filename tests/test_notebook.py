"""A figure in a notebook comes with words, which survive as HTML and as plain text."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from lightning_mono.notebook import show


def test_words_and_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    display = pytest.importorskip("IPython.display")
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(display, "display", lambda data, raw: shown.append(data))
    alt = 'a "map", <img> & more'
    show(Figure(figsize=(2, 1)), alt)
    assert shown[0]["text/plain"] == alt
    page = shown[0]["text/html"]
    assert 'alt="a &quot;map&quot;, &lt;img&gt; &amp; more"' in page
    encoded = page.partition("base64,")[2].partition('"')[0]
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        assert image.size == (200, 100)
    with pytest.raises(ValueError, match="what it shows"):
        show(Figure(), "  ")
