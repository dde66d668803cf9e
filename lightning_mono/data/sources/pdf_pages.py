"""Pages of two manuals as pictures with the text that is on them.

The Debian Policy Manual (GPL-2+) and the Filesystem Hierarchy Standard 3.0 (its notice has to be
kept), 243 pages together. They ship in the Debian package ``debian-policy``.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_mono.data.sample import Exchange, Sample, Skipped, held_out
from lightning_mono.data.sources import packaged
from lightning_mono.errors import DataError

FOLDER = "usr/share/doc/debian-policy"
DOCUMENTS = {"policy": "policy.pdf.gz", "fhs": "fhs/fhs-3.0.pdf.gz"}
QUESTION = "Read the page."
HELD_OUT = 0.1


def pages(split: str, characters: int = 1000, height: int = 896) -> Iterator[Sample | Skipped]:
    """Every page with the text on it, from the top; the kind is the document.

    One page in ten is held out.

    Args:
        split: ``train`` or ``test``.
        characters: at most so much of the text, cut between words.
        height: of the picture in pixels; its width follows from the paper.

    Raises:
        DataError: the package or pypdfium2 cannot be had, or a document cannot be read.
    """
    root = packaged.debian("pdf_pages", "debian-policy", FOLDER)
    for name, file in DOCUMENTS.items():
        for number, page in enumerate(_document(root / file), 1):
            identity = f"{name}/{number}"
            text = _text(page)
            if not text:
                yield Skipped(identity, "the page has no text")
            elif held_out(text, HELD_OUT) == (split == "test"):
                exchange = Exchange(QUESTION, _cut(text, characters), name)
                yield Sample(identity, (_picture(page, height),), (exchange,))


def _document(path: Path) -> Any:
    """The pages of a compressed PDF file."""
    try:
        import pypdfium2
    except ImportError:
        raise DataError(
            "source pdf_pages needs pypdfium2: pip install 'lightning-mono[documents]'"
        ) from None
    try:
        return pypdfium2.PdfDocument(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, zlib.error, pypdfium2.PdfiumError) as error:
        raise DataError(f"source pdf_pages: cannot read {path}: {error}") from error


def _text(page: Any) -> str:
    """The words of a page on one line; pdfium puts U+FFFE where a word is divided."""
    return " ".join(page.get_textpage().get_text_range().replace("\ufffe", "").split())


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters + 1].rpartition(" ")[0]


def _picture(page: Any, height: int) -> bytes:
    file = io.BytesIO()
    page.render(scale=height / page.get_height()).to_pil().convert("RGB").save(file, "PNG")
    return file.getvalue()
