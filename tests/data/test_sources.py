"""What each source yields, from small stand-ins for the packages that they ship in."""

from __future__ import annotations

import email
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_mono import assets
from lightning_mono.data.sample import Exchange, Sample, Skipped, held_out
from lightning_mono.data.sources import SOURCES, SourceSpec, art4apps, easy_vqa, text, tuxpaint
from lightning_mono.errors import AssetError, DataError

from .conftest import png

WriteJsonl = Callable[[list[object]], Path]
EASY = [
    ["what is the blue shape?", "rectangle", 0],
    ["is there not a triangle?", "yes", 0],
    ["is there a red shape?", "no", 1],
    ["is no circle present?", "yes", 1],
    ["what shape is present?", "circle", 2],
    ["does the image contain a teal shape?", "yes", 2],
]


def read(name: str, split: str = "train", **options: Any) -> list[Sample]:
    samples = list(SourceSpec(name, split, options).read())
    assert all(isinstance(sample, Sample) for sample in samples)
    return samples  # type: ignore[return-value]


@pytest.fixture
def easy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for split in ("train", "test"):
        folder = tmp_path / "easy_vqa/data" / split
        (folder / "images").mkdir(parents=True)
        (folder / "questions.json").write_text(json.dumps(EASY))
        for image in range(3):
            (folder / f"images/{image}.png").write_bytes(png())
    monkeypatch.setattr(assets, "pypi", lambda *_: tmp_path)
    return tmp_path / "easy_vqa/data"


def test_easy_vqa_groups_the_questions_of_a_picture(easy: Path) -> None:
    first, second, third = read("easy_vqa", "test")
    assert (first.id, first.images) == ("test/0", (png(),))
    assert first.exchanges == (
        Exchange("what is the blue shape?", "rectangle", "shape"),
        Exchange("is there not a triangle?", "yes", "absence"),
    )
    assert [exchange.kind for exchange in second.exchanges] == ["presence", "absence"]
    assert [exchange.kind for exchange in third.exchanges] == ["shape", "presence"]


def test_easy_vqa_captions_say_what_the_answers_settle(easy: Path) -> None:
    captions = {sample.id: sample.exchanges[0].answer for sample in read("easy_vqa_captions")}
    assert captions == {"train/0": "a blue rectangle", "train/2": "a teal circle"}


def test_easy_vqa_reading_can_answer_every_question(easy: Path) -> None:
    texts = [sample.text for sample in read("easy_vqa_reading")]
    assert texts == [
        "the image shows a blue rectangle.",
        "the image shows a shape, not red, not a circle.",
        "the image shows a teal circle.",
    ]
    assert not any(sample.images for sample in read("easy_vqa_reading"))


def test_easy_vqa_counts_a_missing_picture(easy: Path) -> None:
    (easy / "train/images/1.png").unlink()
    skipped = list(easy_vqa.questions("train"))[1]
    assert isinstance(skipped, Skipped)
    assert "No such file" in skipped.reason
    (easy / "train/questions.json").unlink()
    with pytest.raises(DataError, match=r"cannot read .*questions\.json"):
        list(easy_vqa.questions("train"))


def published(name: str, split: str) -> list[Sample]:
    try:
        return read(name, split)
    except (AssetError, DataError) as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("split", "images", "count"), [("train", 4000, 38575), ("test", 1000, 9673)]
)
def test_easy_vqa_has_its_published_size(split: str, images: int, count: int) -> None:
    samples = published("easy_vqa", split)
    assert len(samples) == images
    assert sum(len(sample.exchanges) for sample in samples) == count
    majority = [e for s in samples for e in s.exchanges if e.answer == "yes"]
    assert len(majority) == (14229 if split == "train" else 3611)


def believed(text: str, word: str) -> bool | None:
    """Whether a caption says that the picture has a color or shape; None if it leaves it open."""
    kinds = (easy_vqa.COLORS, easy_vqa.SHAPES)
    rivals = next(set(kind) for kind in kinds if word in kind)
    caption, *negations = text.removesuffix(".").split(", ")
    if rivals & set(caption.split()):
        return word in caption.split()
    return False if f"not {word}" in negations or f"not a {word}" in negations else None


def test_every_easy_vqa_question_can_be_answered_from_its_derived_caption() -> None:
    for sample in published("easy_vqa_reading", "train"):
        for exchange in sample.exchanges:
            if exchange.kind in ("color", "shape"):
                assert believed(sample.text, exchange.answer)
                continue
            words = set(exchange.question.rstrip("?").split())
            (word,) = words & {*easy_vqa.COLORS, *easy_vqa.SHAPES}
            there = (exchange.answer == "yes") == (exchange.kind == "presence")
            assert believed(sample.text, word) is there


@pytest.mark.slow  # downloads 180 MB where they are not in the cache
@pytest.mark.parametrize(
    ("name", "module", "pictures"),
    [("art4apps", art4apps, 585), ("tuxpaint", tuxpaint, 700)],
)
def test_debian_pictures_split_by_their_words(name: str, module: Any, pictures: int) -> None:
    train, test = published(name, "train"), published(name, "test")
    assert len(train) + len(test) >= pictures
    assert 0.05 < len(test) / len(train) < 0.2
    answers = [{e.answer for s in split for e in s.exchanges} for split in (train, test)]
    assert not answers[0] & answers[1]
    assert all(s.exchanges[0].question == module.QUESTION for s in train)


@pytest.mark.parametrize("name", ["art4apps", "tuxpaint"])
def test_a_missing_debian_package_asks_for_apt(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object) -> None:
        raise AssetError("cannot fetch it: apt-get is not installed")

    monkeypatch.setattr(assets, "debian", offline)
    with pytest.raises(DataError, match=f"source {name} needs apt .*apt-get is not installed"):
        list(SourceSpec(name).read())


def test_tuxpaint_reads_captions_and_counts_empty_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / tuxpaint.FOLDER / "animals"
    folder.mkdir(parents=True)
    for name, words in {
        "cat": "A cat.\nde.utf8=Eine Katze.\n",
        "void": "\n",
        "mirror": None,
    }.items():
        (folder / f"{name}.png").write_bytes(png())
        if words is not None:
            (folder / f"{name}.txt").write_text(words)
    monkeypatch.setattr(assets, "debian", lambda *_: tmp_path)
    both = [*tuxpaint.stamps("train"), *tuxpaint.stamps("test")]
    samples = [sample for sample in both if isinstance(sample, Sample)]
    assert [sample.exchanges for sample in samples] == [
        (Exchange("Describe the picture.", "A cat.", "animals"),)
    ]
    assert Skipped("animals/void", "void.txt has no caption") in both


def test_stdlib_docs_are_prose_in_disjoint_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text.sysconfig, "get_path", lambda _: str(Path(email.__file__).parent))
    train, test = read("stdlib_docs"), read("stdlib_docs", "test")
    texts = [sample.text for sample in train + test]
    assert len(texts) == len(set(texts)) > 500
    assert sum(map(len, texts)) > 500_000
    assert "help/assert#0" in {sample.id for sample in train}
    assert any(sample.id.startswith("lib/message#") for sample in train)
    assert 0.02 < len(test) / len(texts) < 0.09
    assert len({sample.id for sample in train + test}) == len(texts)


def test_text_is_cut_between_paragraphs_and_loses_no_word(tmp_path: Path) -> None:
    paragraphs = [f"paragraph {n} " + "word " * (n % 7) for n in range(60)]
    long = "\n".join(f"line {n} of a long paragraph" for n in range(20))
    whole = "\n\n".join([*paragraphs[:30], long, *paragraphs[30:]])
    (tmp_path / "a.txt").write_text(whole)
    samples = read("text_files", path=str(tmp_path), characters=100)
    samples += read("text_files", "test", path=str(tmp_path), characters=100)
    samples.sort(key=lambda sample: int(sample.id.split("#")[1]))
    assert all(0 < len(sample.text) <= 100 for sample in samples)
    assert " ".join(sample.text for sample in samples).split() == whole.split()


def test_text_files_skip_what_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "good.txt").write_text("hello")
    found = [*text.text_files("train", str(tmp_path)), *text.text_files("test", str(tmp_path))]
    assert [sample.id for sample in found] in (
        ["bad.txt", "good.txt#0", "bad.txt"],
        ["bad.txt", "bad.txt", "good.txt#0"],
    )
    with pytest.raises(DataError, match="is not a folder"):
        read("text_files", path=str(tmp_path / "none"))


def test_files_that_change_change_the_stamp(tmp_path: Path) -> None:
    spec = SourceSpec("text_files", options={"path": str(tmp_path)})
    (tmp_path / "a.txt").write_text("a")
    before = spec.stamp()
    assert spec.stamp() == before
    (tmp_path / "b.txt").write_text("b")
    assert spec.stamp() != before


def test_jsonl_forms(write_jsonl: WriteJsonl) -> None:
    turns = [
        {"from": "human", "value": "<image>\nWhat is it?"},
        {"from": "gpt", "value": "a cat"},
        {"role": "user", "from": "user", "value": "Is it red?"},
        {"from": "assistant", "value": "no"},
    ]
    path = write_jsonl(
        [
            {"id": 7, "image": "red.png", "question": "q?", "answer": "a", "kind": "k"},
            {"images": ["red.png", "red.png"], "caption": "two views"},
            {"image": "red.png", "conversations": turns},
            {"text": "a document"},
            {"text": "a text", "question": "q?", "answer": "a"},
        ]
    )
    question, caption, talk, document, reading = read("jsonl", path=str(path))
    assert question == Sample("7", (png(),), (Exchange("q?", "a", "k"),))
    assert caption.id == "line 2"
    assert len(caption.images) == 2
    assert caption.exchanges[0].answer == "two views"
    assert talk.dialogue
    assert talk.exchanges == (Exchange("What is it?", "a cat"), Exchange("Is it red?", "no"))
    assert (document.text, document.exchanges) == ("a document", ())
    assert (reading.text, len(reading.exchanges), reading.images) == ("a text", 1, ())


def talk(*said: str) -> list[dict[str, str]]:
    sides = ("human", "gpt") * len(said)
    return [{"from": side, "value": value} for side, value in zip(sides, said, strict=False)]


@pytest.mark.parametrize(
    ("record", "questions", "dialogue"),
    [
        ({"conversations": talk("<image>\nred?", "no")}, ["red?"], False),
        ({"conversations": talk("<image> red?", "no", "why?", "a")}, ["red?", "why?"], True),
        ({"question": "<image>red?", "answer": "no"}, ["red?"], False),
        ({"conversations": talk("red?\n<image>\n", "no")}, ["red?\n<image>"], True),
        ({"question": "is <image> red?", "answer": "no"}, ["is <image> red?"], True),
        ({"conversations": talk("a", "b", "<image>\nc", "d")}, ["a", "<image>\nc"], True),
        (
            {"images": ["red.png"] * 2, "conversations": talk("<image>\na", "b", "c <image>", "d")},
            ["<image>\na", "c <image>"],
            True,
        ),
        (
            {"images": ["red.png"] * 2, "conversations": talk("<image>\n<image>\na", "b")},
            ["a"],
            False,
        ),
    ],
)
def test_jsonl_keeps_placeholders_that_say_where(
    write_jsonl: WriteJsonl, record: dict[str, Any], questions: list[str], dialogue: bool
) -> None:
    (sample,) = read("jsonl", path=str(write_jsonl([{"image": "red.png", **record}])))
    assert [exchange.question for exchange in sample.exchanges] == questions
    assert sample.dialogue is dialogue


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"image": "red.png", "conversations": talk("<image> <image>", "b")}, "2 <image> for 1"),
        ({"images": ["red.png"] * 2, "question": "<image>", "answer": "b"}, "1 <image> for 2"),
        ({"question": "<image> red?", "answer": "b"}, "1 <image> for 0"),
    ],
)
def test_jsonl_skips_lines_with_more_or_fewer_placeholders_than_images(
    write_jsonl: WriteJsonl, record: dict[str, Any], reason: str
) -> None:
    path = write_jsonl([{"text": "a document"}, {"id": "7", **record}])
    _, skipped = SourceSpec("jsonl", options={"path": str(path)}).read()
    assert skipped == Skipped("7", f"line 2: has {reason} images", "image count")


def test_jsonl_is_whole_unless_a_share_is_held_out(write_jsonl: WriteJsonl) -> None:
    path = write_jsonl([{"id": f"s{n}", "text": "a"} for n in range(200)])
    assert len(read("jsonl", path=str(path))) == len(read("jsonl", "test", path=str(path))) == 200
    splits = [
        {sample.id for sample in read("jsonl", split, path=str(path), held_out_share=0.2)}
        for split in ("train", "test")
    ]
    assert not splits[0] & splits[1]
    assert len(splits[0] | splits[1]) == 200
    assert 20 < len(splits[1]) < 60


def test_the_held_out_share_is_kept() -> None:
    share = sum(held_out(str(number), 0.1) for number in range(10_000)) / 10_000
    assert share == pytest.approx(0.1, abs=0.01)
    assert not held_out("x", 0.0)
    assert held_out("x", 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("easy_vqq",), "no data source 'easy_vqq'; did you mean 'easy_vqa'?"),
        (("easy_vqa", "val"), "source easy_vqa: split is train or test, not 'val'"),
        (("easy_vqa", "train", {"path": "x"}), "source easy_vqa has no option 'path'"),
        (("text_files", "train", {"path": "x", "patern": "*"}), "did you mean 'pattern'?"),
        (("jsonl",), "source jsonl needs the option 'path'"),
    ],
)
def test_a_wrong_spec_is_one_line(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(DataError) as caught:
        SourceSpec(*arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_source_takes_a_split_first() -> None:
    for source in SOURCES.values():
        assert next(iter(inspect.signature(source.read).parameters)) == "split"
