"""Text alone: the documentation of Python's standard library, and a user's own files."""

from __future__ import annotations

import ast
import platform
import re
import sysconfig
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from pydoc_data import topics

from lightning_mono.data.sample import Sample, Skipped, held_out
from lightning_mono.errors import DataError

HELD_OUT = 0.05
_NOT_DOCUMENTATION = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"}


def stdlib_docs(split: str, characters: int = 1000) -> Iterator[Sample | Skipped]:
    """The language reference that ``help()`` shows, and all docstrings of the standard library.

    Real English prose that is on every machine with Python; 5 % of the documents are held out.

    Args:
        split: ``train`` or ``test``.
        characters: longest document; a text is cut between paragraphs, or lines, into several.
    """
    seen: set[str] = set()
    for name, text in chain(_help_topics(), _docstrings()):
        for document in _documents(name, text, characters):
            if document.text not in seen and held_out(document.text, HELD_OUT) == (split == "test"):
                seen.add(document.text)
                yield document


def python_stamp(characters: int = 1000) -> str:
    """The version of Python, which the documentation comes with."""
    return platform.python_version()


def text_files(
    split: str, path: str, pattern: str = "**/*.txt", characters: int = 1000
) -> Iterator[Sample | Skipped]:
    """The UTF-8 text files of a folder; 5 % of the documents are held out.

    Args:
        split: ``train`` or ``test``.
        path: the folder.
        pattern: which files in it.
        characters: longest document; a text is cut between paragraphs, or lines, into several.

    Raises:
        DataError: no such folder.
    """
    for file in _files(path, pattern):
        name = file.relative_to(Path(path).absolute()).as_posix()
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            yield Skipped(name, f"cannot read text: {error}")
            continue
        for document in _documents(name, text, characters):
            if held_out(document.text, HELD_OUT) == (split == "test"):
                yield document


def files_stamp(path: str, pattern: str = "**/*.txt", characters: int = 1000) -> str:
    """Names, sizes and times of the files."""
    stats = ((file, file.stat()) for file in _files(path, pattern))
    return "\n".join(f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats)


def _files(path: str, pattern: str) -> list[Path]:
    folder = Path(path).absolute()
    if not folder.is_dir():
        raise DataError(f"source text_files: {path} is not a folder")
    return sorted(file for file in folder.glob(pattern) if file.is_file())


def _help_topics() -> Iterator[tuple[str, str]]:
    for name, text in sorted(topics.topics.items()):
        yield f"help/{name}", text


def _docstrings() -> Iterator[tuple[str, str]]:
    """(name, docstrings as paragraphs) of every module of the library that can be parsed."""
    root = Path(sysconfig.get_path("stdlib"))
    for file in sorted(root.rglob("*.py")):
        inside = file.relative_to(root)
        if not _NOT_DOCUMENTATION.isdisjoint(inside.parts):
            continue
        try:
            tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        texts = [doc for node in ast.walk(tree) if (doc := _docstring(node))]
        yield f"lib/{inside.with_suffix('').as_posix()}", "\n\n".join(texts)


def _docstring(node: ast.AST) -> str | None:
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    doc = ast.get_docstring(node)
    if doc is None or isinstance(node, ast.Module):
        return doc
    return f"{node.name}: {doc}"


def _documents(name: str, text: str, characters: int) -> Iterator[Sample]:
    for number, document in enumerate(_cut(text, characters)):
        yield Sample(f"{name}#{number}", text=document)


def _cut(text: str, characters: int) -> Iterator[str]:
    """Pieces of at most ``characters``, unless a single line is longer."""
    piece = ""
    for gap, unit in _units(text, characters):
        if piece and len(piece) + len(gap) + len(unit) > characters:
            yield piece
            piece = ""
        piece = f"{piece}{gap}{unit}" if piece else unit
    if piece:
        yield piece


def _units(text: str, characters: int) -> Iterator[tuple[str, str]]:
    """Paragraphs with the gap before them; the lines of those longer than ``characters``."""
    for paragraph in filter(str.strip, re.split(r"\n\s*\n", text)):
        if len(paragraph) <= characters:
            yield "\n\n", paragraph.rstrip()
            continue
        gap = "\n\n"
        for line in filter(str.strip, paragraph.splitlines()):
            yield gap, line.rstrip()
            gap = "\n"
