"""The benchmarks that ship: of small stand-ins for the packages, and of the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_mono import assets
from lightning_mono.benchmarks.find import open_benchmark
from lightning_mono.benchmarks.shipped import SHIPPED
from lightning_mono.data.sources import emoji
from lightning_mono.metrics import METRICS, Captions

from .conftest import png


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where packages are unpacked, and prepared data below."""
    monkeypatch.setenv("LIGHTNING_MONO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(assets, "debian", lambda *_: tmp_path)
    monkeypatch.setattr(assets, "npm", lambda name, *_: tmp_path / "npm" / name)
    return tmp_path


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_captions_of_the_held_out_stamps(packages: Path) -> None:
    for n in range(60):
        stamp = packages / "usr/share/tuxpaint/stamps" / "animals" / f"{n}.png"
        put(stamp, png("red"))
        put(stamp.with_suffix(".txt"), f"A creature of number {n}.".encode())
    benchmark = open_benchmark("tuxpaint_captions")
    assert 1 <= len(benchmark.items) < 20
    assert (benchmark.scored_as, benchmark.prompt.max_new_tokens) == ("coco", 40)
    for item in benchmark.items:
        assert benchmark.ask(item) == "Describe the picture."
        assert item.question == Captions((item.answer,), "animals")
        assert item.images[0].read() == png("red")


def test_the_unseen_style_shows_known_and_new_concepts(packages: Path) -> None:
    names = [f"thing {n}" for n in range(60)]
    data = [{"hexcode": f"1F{n:03}", "label": name, "group": 0} for n, name in enumerate(names)]
    folder = packages / "npm" / "emojibase-data" / "package" / "en"
    words = {"groups": [{"order": 0, "message": "things"}]}
    for where in (folder, packages / "npm" / "emojibase-data" / "en"):
        put(where / "data.json", json.dumps(data).encode())
        put(where / "messages.json", json.dumps(words).encode())
    style = emoji.STYLES["noto"]
    for where in (Path("package"), Path()):
        for n in range(60):
            file = packages / "npm" / style.package / where / "img/google/64" / f"1f{n:03}.png"
            put(file, png("blue"))
    benchmark = open_benchmark("emoji_unseen")
    kinds = {item.answer: item.question.kind for item in benchmark.items}
    assert set(kinds) == set(names), "every concept is asked once"
    new = [name for name, kind in kinds.items() if kind == "new concept"]
    assert 1 <= len(new) < 20
    assert set(kinds.values()) == {"known concept", "new concept"}


def test_all_are_scored_by_a_metric_and_asked_briefly() -> None:
    for name, shipped in SHIPPED.items():
        assert shipped.scored_as in METRICS, name
        assert shipped.purpose == shipped.purpose.strip(" .")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "questions", "kinds"),
    [
        ("easy_vqa", 9673, {"color", "shape", "presence", "absence"}),
        ("gcompris_photos", 123, {"category"}),
        ("emoji_unseen", 1906, {"known concept", "new concept"}),
        ("pdf_pages", 18, {"policy", "fhs"}),
        ("tuxpaint_captions", 68, None),
    ],
)
def test_the_real_ones(name: str, questions: int, kinds: set[str] | None) -> None:
    benchmark = open_benchmark(name)
    assert len({item.id for item in benchmark.items}) == len(benchmark.items) == questions
    assert kinds is None or {item.question.kind for item in benchmark.items} == kinds
    assert benchmark.digest == open_benchmark(name).digest
