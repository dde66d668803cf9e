"""Assets: found, checked, unpacked once and whole, whatever is missing, wrong or killed."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lightning_mono import assets
from lightning_mono.errors import AssetError

WHEEL = "tiny_words-1.0-py3-none-any.whl"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and package clients that cannot reach anything."""
    monkeypatch.setenv("LIGHTNING_MONO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("npm_config_offline", "true")
    (tmp_path / "cache/downloads").mkdir(parents=True)
    return tmp_path / "cache"


def write_wheel(folder: Path) -> str:
    """A wheel of one word, and its hash."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / WHEEL, "w") as file:
        file.writestr("tiny_words/words.txt", "word")
        file.writestr("tiny_words-1.0.dist-info/METADATA", "Name: tiny-words\nVersion: 1.0\n")
        file.writestr("tiny_words-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr("tiny_words-1.0.dist-info/RECORD", "")
    return hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest()


def one_line(error: pytest.ExceptionInfo[AssetError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert assets.cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("LIGHTNING_MONO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert assets.cache_dir() == tmp_path / "xdg/lightning-mono"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert assets.cache_dir() == tmp_path / ".cache/lightning-mono"


def test_a_wheel_is_downloaded_then_served_from_the_cache(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = write_wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    folder = assets.pypi("tiny-words", "1.0", sha256)
    assert (folder / "tiny_words/words.txt").read_text() == "word"
    shutil.rmtree(tmp_path / "index")
    assert assets.pypi("tiny-words", "1.0", sha256) == folder
    assert not list(cache.rglob("*.whl"))
    assert not list(cache.rglob("*.tmp-*"))


def test_a_wheel_placed_by_hand_needs_no_network(cache: Path) -> None:
    sha256 = write_wheel(cache / "downloads")
    assert (assets.pypi("tiny.words", "1.0", sha256) / "tiny_words/words.txt").exists()
    assert (cache / "downloads" / WHEEL).exists()


def test_another_file_than_the_pinned_one_is_refused_and_deleted(cache: Path) -> None:
    sha256 = write_wheel(cache / "downloads")
    with pytest.raises(AssetError) as error:
        assets.pypi("tiny-words", "1.0", "0" * 64)
    assert sha256 in one_line(error)
    assert "0" * 64 in one_line(error)
    assert not (cache / "downloads" / WHEEL).exists()
    assert not (cache / "assets/tiny-words-1.0").exists()


def test_offline_the_message_says_which_file_goes_where(cache: Path) -> None:
    with pytest.raises(AssetError) as error:
        assets.pypi("tiny-words", "1.0", "0" * 64)
    for part in ("tiny-words==1.0", "tiny_words-1.0-*.whl", str(cache / "downloads")):
        assert part in one_line(error)
    with pytest.raises(AssetError) as error:
        assets.npm("@tiny/words", "1.0", "0" * 64)
    assert "@tiny/words@1.0" in one_line(error)
    assert "tiny-words-1.0.tgz" in one_line(error)


def test_a_package_client_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(AssetError, match="apt-get is not installed") as error:
        assets.debian("tiny-words", "usr")
    one_line(error)
    with pytest.raises(AssetError, match="npm is not installed") as error:
        assets.npm("tiny-words", "1.0", "0" * 64)
    one_line(error)


def test_a_placed_tarball_is_unpacked(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("word")
    tarball = cache / "downloads/tiny-words-1.0.tgz"
    with tarfile.open(tarball, "w:gz") as file:
        file.add(tmp_path / "words.txt", "package/words.txt")
    sha256 = hashlib.sha256(tarball.read_bytes()).hexdigest()
    assert (assets.npm("@tiny/words", "1.0", sha256) / "package/words.txt").read_text() == "word"
    tarball.rename(tarball.with_name("tiny-words-2.0.tgz"))
    with pytest.raises(AssetError, match=r"tiny-words-2\.0\.tgz is not the pinned file") as error:
        assets.npm("@tiny/words", "2.0", "0" * 64)
    assert sha256 in one_line(error)
    assert not (cache / "assets/npm-tiny-words-2.0").exists()


def test_an_archive_cut_short_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    write_wheel(tmp_path)
    cut = (tmp_path / WHEEL).read_bytes()[:100]
    (cache / "downloads" / WHEEL).write_bytes(cut)
    with pytest.raises(AssetError, match=f"cannot unpack .*{WHEEL}") as error:
        assets.pypi("tiny-words", "1.0", hashlib.sha256(cut).hexdigest())
    one_line(error)
    (cache / "downloads/tiny-words-1.0.tgz").write_bytes(cut)
    with pytest.raises(AssetError, match=r"cannot unpack .*tiny-words-1\.0\.tgz") as error:
        assets.npm("tiny-words", "1.0", hashlib.sha256(cut).hexdigest())
    one_line(error)
    assert not [path for path in (cache / "assets").iterdir() if path.is_dir()]


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")
def test_a_debian_package_must_hold_its_marker(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "deb/DEBIAN").mkdir(parents=True)
    (tmp_path / "deb/usr/share/words").mkdir(parents=True)
    control = (
        "Package: words\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: a\n"
    )
    (tmp_path / "deb/DEBIAN/control").write_text(control)
    archive = cache / "downloads/words_1_all.deb"
    build = ["dpkg-deb", "--build", str(tmp_path / "deb"), str(archive)]
    subprocess.run(build, check=True, capture_output=True)
    with pytest.raises(AssetError, match="words has no usr/share/none"):
        assets.debian("words", "usr/share/none")
    assert (assets.debian("words", "usr/share/words") / "usr/share/words").is_dir()
    archive.write_bytes(b"no archive")
    assert assets.debian("words", "usr/share/words").is_dir()


def test_a_killed_process_leaves_neither_a_half_folder_nor_a_lock(cache: Path) -> None:
    sha256 = write_wheel(cache / "downloads")
    script = (
        "import os, signal, sys; from lightning_mono import assets\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "assets.pypi('tiny-words', '1.0', sys.argv[1])"
    )
    killed = subprocess.run([sys.executable, "-c", script, sha256], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list((cache / "assets").glob("*.tmp-*"))
    folder = assets.pypi("tiny-words", "1.0", sha256)
    assert (folder / "tiny_words/words.txt").read_text() == "word"
    assert not list((cache / "assets").glob("*.tmp-*"))


def test_concurrent_callers_get_one_folder(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = write_wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    downloads: list[object] = []
    run = subprocess.run

    def counted(*args, **options):  # type: ignore[no-untyped-def]
        downloads.append(args)
        return run(*args, **options)

    monkeypatch.setattr(subprocess, "run", counted)
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: assets.pypi("tiny-words", "1.0", sha256), range(4)))
    assert len(set(folders)) == 1
    assert len(downloads) == 1


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIGHTNING_MONO_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(AssetError, match=r"cannot write .*; set LIGHTNING_MONO_CACHE") as error:
        assets.pypi("tiny-words", "1.0", "0" * 64)
    one_line(error)
