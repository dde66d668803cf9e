"""Packages that sources come from, with one line that says what a machine lacks."""

from __future__ import annotations

from pathlib import Path

from lightning_mono import assets
from lightning_mono.errors import AssetError, DataError


def debian(source: str, package: str, folder: str) -> Path:
    """A folder of a Debian package, such as ``usr/share/tuxpaint/stamps``.

    Raises:
        DataError: the package cannot be had, for one because there is no apt.
    """
    try:
        return assets.debian(package, folder) / folder
    except AssetError as error:
        raise DataError(f"source {source} needs apt (Debian or Ubuntu): {error}") from error


def npm(source: str, name: str, version: str, sha256: str) -> Path:
    """The content of an npm package.

    Raises:
        DataError: the package cannot be had, for one because there is no npm.
    """
    try:
        return assets.npm(name, version, sha256) / "package"
    except AssetError as error:
        raise DataError(f"source {source} needs npm: {error}") from error
