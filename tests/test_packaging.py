"""What is imported with what, what a wheel holds, and folders that must not pass for packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import lightning_mono

ROOT = Path(__file__).parent.parent
MAPPED = ("callbacks", "kernels", "recipes")


def _python(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh interpreter at the repository's root."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("lightning_mono", ("torch", "lightning", "litdata", "omegaconf", "numpy")),
        ("lightning_mono.cli", ("torch", "lightning", "litdata")),
        ("lightning_mono.recipe", ("torch", "lightning", "litdata")),
        ("lightning_mono.stages", ("torch", "lightning", "omegaconf")),
        ("lightning_mono.params", ("torch", "lightning", "omegaconf")),
        ("lightning_mono.placement", ("torch", "lightning", "omegaconf")),
        ("lightning_mono.model", ("lightning", "litdata")),
        ("lightning_mono.kernels", ("lightning", "litdata")),
        ("lightning_mono.checkpoints.folder", ("lightning", "litdata")),
        ("lightning_mono.testing", ("lightning", "litdata", "pytest")),
    ],
)
def test_importing_a_layer_brings_nothing_from_above(
    module: str, forbidden: tuple[str, ...]
) -> None:
    done = _python(f"import sys, {module}; print(*({set(forbidden)!r} & set(sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", ["callbacks", "recipes"])
def test_a_bare_import_says_what_to_import(name: str) -> None:
    done = _python(f"import {name}")
    assert done.returncode != 0
    assert f"ImportError: import lightning_mono.{name}, not {name}" in done.stderr


def test_the_bare_kernels_folder_gives_nothing_away() -> None:
    done = _python(
        "import kernels\n"
        "assert [n for n in vars(kernels) if not n.startswith('__')] == ['annotations']\n"
        "assert not hasattr(kernels, '__version__')\n"
        "from kernels import use\n"
    )
    assert "ImportError: import lightning_mono.kernels, not kernels" in done.stderr


def test_every_public_name_is_there() -> None:
    for name in lightning_mono.__all__:
        assert getattr(lightning_mono, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lightning_mono.nothing  # noqa: B018


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the repository."""
    source = tmp_path_factory.mktemp("source") / "repository"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "runs")
    shutil.copytree(ROOT, source, ignore=ignored)
    built = tmp_path_factory.mktemp("wheel")
    code = f"from setuptools.build_meta import build_wheel; build_wheel({str(built)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return next(built.glob("*.whl"))


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def _shipped(folder: str) -> set[Path]:
    files = {path for path in (ROOT / folder).rglob("*") if path.is_file()}
    return {path for path in files if "__pycache__" not in path.parts}


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    expected = {path.relative_to(ROOT).as_posix() for path in _shipped("lightning_mono")}
    for folder in MAPPED:
        inner = {path.relative_to(ROOT).as_posix() for path in _shipped(folder)}
        assert inner
        expected |= {f"lightning_mono/{name}" for name in inner}
    packaged = {name for name in _names(wheel) if ".dist-info/" not in name}
    assert packaged - expected == set(), "files that do not belong"
    assert expected - packaged == set(), "files that are missing"
    assert any(name.endswith("licenses/LICENSE") for name in _names(wheel))


@pytest.mark.slow
def test_the_wheel_holds_what_is_not_python(wheel: Path) -> None:
    names = _names(wheel)
    assert "lightning_mono/py.typed" in names
    assert "lightning_mono/recipes/quickstart.yaml" in names
    assert "lightning_mono/recipes/micro/language.yaml" in names
    assert "lightning_mono/evaluation/report/report.html.j2" in names
    assert "lightning_mono/evaluation/report/report.css" in names
    assert not any(name.startswith(("tests/", *(f"{m}/" for m in MAPPED))) for name in names)


@pytest.mark.slow
def test_a_wheel_runs_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'installed')!r})\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
        "import lightning_mono; from lightning_mono.cli import main\n"
        "assert 'installed' in lightning_mono.__file__\n"
        "sys.exit(main(['validate']) or main(['ls']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "quickstart" in done.stdout
