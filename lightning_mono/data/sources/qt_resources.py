"""Files inside Qt resource archives (.rcc), as Qt 5 writes them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from lightning_mono.errors import DataError

_COMPRESSED, _FOLDER, _ZSTD = 1, 2, 4  # flags of an entry


def read_resources(path: Path) -> dict[str, bytes]:
    """Path inside the archive -> content.

    Raises:
        DataError: the file cannot be read, is damaged, or is compressed in a way not known here.
    """
    try:
        data = path.read_bytes()
        magic, version, tree, contents, names = struct.unpack_from(">4s4i", data)
        if magic != b"qres":
            raise ValueError("it does not begin with qres")
        return dict(_walk(data, tree, contents, names, 14 if version < 2 else 22))
    except (OSError, ValueError, IndexError, struct.error, zlib.error, RecursionError) as error:
        raise DataError(f"cannot read the Qt resources {path}: {error}; delete the file") from error


def _walk(
    data: bytes, tree: int, contents: int, names: int, size: int, node: int = 0, inside: str = ""
) -> Iterator[tuple[str, bytes]]:
    """Depth first from a node of the tree; ``size`` is the length of a node's entry."""
    entry = tree + node * size
    name, flags = struct.unpack_from(">iH", data, entry)
    path = f"{inside}/{_name(data, names + name)}" if node else ""
    if flags & _FOLDER:
        count, first = struct.unpack_from(">ii", data, entry + 6)
        for child in range(first, first + count):
            if child <= node:
                raise ValueError("its tree has a loop")
            yield from _walk(data, tree, contents, names, size, child, path)
        return
    (start,) = struct.unpack_from(">i", data, entry + 10)
    yield path, _content(data, contents + start, flags)


def _name(data: bytes, at: int) -> str:
    (length,) = struct.unpack_from(">H", data, at)
    return data[at + 6 : at + 6 + 2 * length].decode("utf-16-be")


def _content(data: bytes, at: int, flags: int) -> bytes:
    (length,) = struct.unpack_from(">i", data, at)
    content = data[at + 4 : at + 4 + length]
    if len(content) < length:
        raise ValueError("it is cut short")
    if flags & _ZSTD:
        raise ValueError("it is compressed with zstd, not zlib")
    return zlib.decompress(content[4:]) if flags & _COMPRESSED else content
