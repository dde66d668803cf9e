"""Pictures of a benchmark: in memory, or in a file that is read when it is needed."""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from lightning_mono.data.sample import SampleError
from lightning_mono.data.sources.files import check_relative, read_inside


class Picture(Protocol):
    """Something that can be read as an encoded image file."""

    def read(self) -> bytes:
        """Return the encoded image.

        Raises:
            SampleError: its file cannot be read.
        """


@dataclass(frozen=True)
class Inline:
    """An encoded image in memory."""

    data: bytes

    def read(self) -> bytes:
        return self.data


@dataclass(frozen=True)
class File:
    """An image file: `name` within the folder `root`, which is resolved."""

    root: Path
    name: str

    def read(self) -> bytes:
        return read_inside(self.root, self.name)


def from_base64(text: str) -> Inline:
    """Decode an image that stands in a record.

    Raises:
        SampleError: it is not base64, or no image.
    """
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SampleError("unreadable image", f"is not base64: {error}") from error
    _size(data)
    return Inline(data)


def from_file(name: str, root: Path) -> File:
    """Find an image beside a benchmark's file, and look at how it begins.

    Raises:
        SampleError: it is not there, lies outside of the folder, or is no image.
    """
    check_relative(name)
    root = root.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise SampleError("unsafe path", f"{name} lies outside of {root}")
    if not path.is_file():
        raise SampleError("missing file", f"there is no file {path}")
    _size(path)
    return File(root, name)


def size(picture: Picture) -> tuple[int, int]:
    """Return (width, height) in pixels as they are stored, without decoding the picture."""
    return _size(picture.read())


def _size(image: bytes | Path) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
            return opened.size
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise SampleError("unreadable image", "is not an image that can be read") from error
