"""Prepared sets in an object store: their files are fetched when they are first read, and kept."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock
from litdata.streaming.downloader import Downloader, get_downloader

from lightning_mono.assets import cache_dir
from lightning_mono.errors import DataError

STORES = ("s3", "gs")
"""Schemes of the stores, and names of the extras that bring what litdata needs to read them."""
ATTEMPTS = 10
"""How often S3 is asked before it counts as out of reach, a few minutes in all."""


@dataclass(frozen=True)
class Mirror:
    """Files of a prepared set, as far as they have been read, in a folder on this machine.

    Attributes:
        url: of the set.
        folder: where its files are kept; another one when the set's manifest changes.
    """

    url: str
    folder: Path

    @classmethod
    def of(cls, url: str) -> Mirror:
        """The mirror of a set, with its index and manifest.

        Raises:
            DataError: no such store or set, or a package is missing.
        """
        manifest = _fetched(url, "manifest.json")
        digest = hashlib.sha256(url.encode() + manifest).hexdigest()[:12]
        mirror = cls(url, cache_dir() / "remote" / digest)
        mirror.have("manifest.json")
        mirror.have("index.json")
        return mirror

    def have(self, name: str) -> None:
        """Sees to it that a file is in the folder; of several processes one fetches it.

        Raises:
            DataError: it cannot be fetched or kept.
        """
        path = self.folder / name
        if path.exists():
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f".{name}.lock"):
                if path.exists():
                    return
                content = _fetched(self.url, name)
                with tempfile.TemporaryDirectory(dir=self.folder, prefix=".fetch-") as scratch:
                    (Path(scratch) / name).write_bytes(content)
                    os.replace(Path(scratch) / name, path)
        except OSError as error:
            raise DataError(f"cannot keep {self.url}/{name} in {self.folder}: {error}") from error


def _fetched(url: str, name: str) -> bytes:
    """The content of one file of a set."""
    file = io.BytesIO()
    try:
        _downloader(url, os.getpid()).download_fileobj(f"{url.rstrip('/')}/{name}", file)
    except DataError:
        raise
    except Exception as error:  # each store's library has exceptions of its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"cannot read {url}/{name}: {reason}") from error
    return file.getvalue()


@lru_cache
def _downloader(url: str, process: int) -> Downloader:
    """One for each process: a fork must not share connections with its parent."""
    scheme = url.partition("://")[0]
    if scheme not in STORES:
        known = ", ".join(f"{name}://" for name in STORES)
        raise DataError(f"{url}: prepared sets are read from {known} or a folder")
    try:
        return get_downloader(url, "", [], _patience() if scheme == "s3" else None)
    except ModuleNotFoundError as error:
        raise DataError(f"{url} needs a package; pip install 'lightning-mono[{scheme}]'") from error


def _patience() -> dict[str, Any]:
    """litdata would ask a thousand times, which takes hours where the address is wrong."""
    from botocore.config import Config

    return {"config": Config(retries={"max_attempts": ATTEMPTS, "mode": "adaptive"})}
