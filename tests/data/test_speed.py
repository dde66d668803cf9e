"""The table of speeds comes from the pictures of whatever source is named."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lightning_mono.data import speed
from lightning_mono.data.sample import Exchange, Sample
from lightning_mono.data.sources import SOURCES, Source
from lightning_mono.errors import DataError

from .conftest import png


def pictures(split: str) -> Iterator[Sample]:
    for number in range(3):
        yield Sample(str(number), (png(size=(2000, 1000)),), (Exchange("What?", "a color"),))


def words(split: str) -> Iterator[Sample]:
    yield Sample("0", text="words alone")


def test_tables_count_images_pixels_and_tiles(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SOURCES, "made", Source(pictures))  # type: ignore[arg-type]
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    speed.main(["made"])
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("| made")
    ]
    assert rows[0][:3] == ["made", "3", "2.000"]
    assert [row[1:3] for row in rows[1:]] == [
        ["one tile of 448", "1.0"],
        ["6 of 448 and thumbnail", "3.0"],
        ["12 of 448 and thumbnail", "9.0"],
    ]
    for row in rows:
        assert all(float(cell.replace(",", "")) > 0 for cell in row[3:])


def test_a_source_without_pictures_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "words", Source(words))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="source words has no pictures"):
        speed.main(["words"])
