"""Documents that hypothesis draws."""

from __future__ import annotations

from hypothesis import strategies as st

from lightning_mono.testing import IMAGE

words = st.lists(st.integers(4, 63), min_size=1, max_size=4)


@st.composite
def prefixes(draw: st.DrawFn) -> list[int]:
    """Words, with or without an image among them."""
    image = [IMAGE] * 4 if draw(st.booleans()) else []
    return draw(words) + image + draw(st.lists(st.integers(4, 63), max_size=3))


documents = st.tuples(prefixes(), st.lists(words, max_size=3)).map(lambda d: [d[0], *d[1]])
rows = st.lists(documents, min_size=1, max_size=3)
