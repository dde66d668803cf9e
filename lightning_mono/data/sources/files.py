"""A user's files: which ones a path means, and images read only from inside their root."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path, PurePosixPath, PureWindowsPath

from lightning_mono.data.sample import SampleError
from lightning_mono.errors import DataError

MAX_BYTES = 256 * 2**20
"""Most of one image, one line or one member of an archive."""


def find(path: str, suffixes: Sequence[str]) -> list[Path]:
    """The files that a path means, in an order that never changes.

    Args:
        path: a file; a folder, which holds them at any depth; a pattern such as ``shards/*.tar``;
            or one with braces such as ``{0000..0099}.tar`` or ``{coco,sbu}.json``.
        suffixes: of the files that are taken from a folder, such as ``.tar``.

    Raises:
        DataError: there is none, or one that is named is not there.
    """
    whole = os.path.expanduser(path)
    found: list[Path] = []
    for name in [whole] if os.path.exists(whole) else _without_braces(whole):
        if os.path.isdir(name):
            inside = Path(name).rglob("*")
            found += sorted(f for f in inside if f.suffix.lower() in suffixes and f.is_file())
        elif not os.path.exists(name) and glob.has_magic(name):
            found += sorted(map(Path, glob.glob(name, recursive=True)))
        else:
            found.append(Path(name))
    missing = next((file for file in found if not file.exists()), None)
    if missing is not None or not found:
        what = f"cannot read {missing}: No such file" if missing else f"{path} holds no file"
        raise DataError(f"{what}; expected {', '.join(suffixes)}")
    return found


def labels(found: Sequence[Path]) -> list[str]:
    """What files are called in messages: their paths from the folder that holds them all."""
    root = os.path.commonpath([file.absolute().parent for file in found])
    return [os.path.relpath(file.absolute(), root) for file in found]


def stamp(files: Sequence[Path]) -> str:
    """Names, sizes and times of files."""
    stats = ((file.absolute(), file.stat()) for file in files)
    return "\n".join(f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats)


def read_inside(root: Path, name: object) -> bytes:
    """The content of a file that a record names.

    Args:
        root: the folder that names start from, resolved; nothing outside it is read.
        name: relative to it.

    Raises:
        SampleError: it leaves the root, by itself or by a link, is not there, or is too large.
    """
    if not isinstance(name, str):
        raise SampleError(
            "malformed record", "image is not a file name, or images not a list of them"
        )
    check_relative(name)
    try:
        file = (root / name).resolve()
        if not file.is_relative_to(root):
            raise SampleError("unsafe path", f"image {name} lies outside {root}")
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for without end
            raise SampleError("missing file", f"cannot read image {name}: not a file")
        check_size(status.st_size, f"image {name}")
        return file.read_bytes()
    except OSError as error:
        reason = f"cannot read image {name}: {error.strerror}"
        raise SampleError("missing file", reason) from error
    except (ValueError, RuntimeError) as error:  # a null byte, a loop of links
        raise SampleError("unsafe path", f"image {name!r}: {error}") from error


def check_relative(name: str) -> None:
    """A name is relative on every system; whether it climbs out is seen when it is resolved.

    Raises:
        SampleError: it is absolute.
    """
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        raise SampleError("unsafe path", f"{name} is absolute; write it relative to the images")


def check_size(size: int, what: str) -> None:
    """Something of ``size`` bytes may be read as a whole.

    Raises:
        SampleError: it is too large.
    """
    if size > MAX_BYTES:
        raise SampleError("too large", f"{what} has {size:,} bytes, more than {MAX_BYTES:,}")


def _without_braces(path: str) -> Iterator[str]:
    """``a{0..2}`` and ``a{x,y}`` as the paths that they stand for, as a shell does it."""
    literal, *rest = re.split(r"\{([^{}]*(?:,|\.\.)[^{}]*)\}", path)
    choices = [list(_choices(inside)) for inside in rest[::2]]
    for chosen in product(*choices):
        yield literal + "".join(a + b for a, b in zip(chosen, rest[1::2], strict=True))


def _choices(inside: str) -> Iterator[str]:
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
    if numbers is None:
        yield from inside.split(",")
        return
    first, last = numbers.groups()
    width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
    for number in range(int(first), int(last) + 1):
        yield f"{number:0{width}}"
