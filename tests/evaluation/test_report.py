"""The report: one file that stands alone, says what is so, and says what is missing."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path

import pytest

from lightning_mono.errors import DataError
from lightning_mono.evaluation.report import write_report
from lightning_mono.evaluation.report.words import THIN, percent

from .made_runs import STAGES, journal, looking, write_journal, write_run


class Page(html.parser.HTMLParser):
    """The text a reader sees, and what would be loaded or collide."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.open: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = re.sub(r"[ \n]+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br", "link", "use"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href"):
                self.references.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        if tag != "use":
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "img", "br", "link", "use"):
            self.handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open and "svg" not in self.open:
            self.words.append(data)


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(
    run: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    folder, images = run
    write_journal(tmp_path / "language", journal({"language": (40, ["text"], 100, 1e-3)}))
    path = write_report(
        folder, images=images, attention=looking(), language_run=tmp_path / "language"
    )
    assert path == folder / "report.html"
    page = Page(path)
    assert page.open == []
    assert all(ref.startswith(("data:", "#")) for ref in page.references)
    assert len(page.ids) == len(set(page.ids)), "charts must not share ids"
    links = {ref[1:] for ref in page.references if ref.startswith("#")}
    assert links <= set(page.ids)
    assert "url(http" not in path.read_text(encoding="utf-8")
    assert not list(folder.glob("*.partial"))


def test_the_headlines_are_those_of_the_scores(run: tuple[Path, dict[str, bytes]]) -> None:
    folder, images = run
    scores = json.loads((folder / "metrics.json").read_text())["test"]
    text = Page(write_report(folder, images=images)).text
    for share in ("accuracy", "question_only_accuracy", "majority_accuracy"):
        assert percent(scores[share]) in text
    gain = 100 * (scores["accuracy"] - scores["question_only_accuracy"])
    assert f"seeing the picture is worth {gain:.1f} points" in text
    assert f"of {scores['questions']} test questions" in text
    assert "Its language is untouched: in 4 checks" in text
    assert f"6{THIN}min 20{THIN}s from start to finish" in text
    assert "gets 78 right and the trained model 77; guessing would get about 25" in text
    for name in STAGES:
        assert f"after {name}" in text
    assert "truncated <PNG>" in text  # and so was escaped


def test_what_a_run_lacks_is_said_and_not_made_up(tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    write_run(folder, blind=False, text_kept=False)
    text = Page(write_report(folder)).text
    assert "no question-only model was trained beside it" in text
    assert "not measured" in text
    assert "seeing the picture is worth" not in text
    assert "Its language has moved since the stage concept" in text
    assert "untouched:" not in text
    assert "The test pictures were not at hand" in text
    assert "No attention was recorded" in text
    assert "Before that: the language model" not in text


def test_a_run_that_has_only_begun_has_a_report_too(tmp_path: Path) -> None:
    write_journal(tmp_path / "new", [])
    text = Page(write_report(tmp_path / "new")).text
    for sentence in (
        "has not been evaluated yet",
        "was not measured before and after training",
        "No training steps are recorded",
        "No times are recorded",
        "holds no recipe",
    ):
        assert sentence in text


@pytest.mark.parametrize(
    ("accuracy", "blind", "sentence"),
    [
        (0.80, 0.50, "seeing the picture is worth 30.0 points"),
        (0.51, 0.50, "too close to say that the pictures help"),
        (0.30, 0.50, "20.0 points more: this model does worse with its pictures"),
    ],
)
def test_the_worth_of_pictures_is_told_whichever_way_it_went(
    run: tuple[Path, dict[str, bytes]], accuracy: float, blind: float, sentence: str
) -> None:
    folder, _ = run
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["test"] |= {"accuracy": accuracy, "question_only_accuracy": blind, "questions": 400}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert sentence in Page(write_report(folder)).text


def test_each_verdict_is_in_words_and_matches_the_predictions(
    run: tuple[Path, dict[str, bytes]],
) -> None:
    folder, images = run
    source = write_report(folder, images=images).read_text(encoding="utf-8")
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    by_question: dict[tuple[str, str], dict[str, object]] = {}
    for line in lines:
        p = json.loads(line)
        by_question[p["image"], p["question"]] = p
    cards = re.findall(r'alt="Test picture ([^"]+)">(.*?)</li>', source, flags=re.DOTALL)
    assert len(cards) == 12
    for image, card in cards:
        for question, verdict in re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", card, re.DOTALL):
            expected = by_question[image, question]
            assert ("right" in verdict) == expected["correct"]
            assert f"<em>{expected['prediction']}</em>" in verdict


def test_pictures_that_cannot_be_decoded_are_named(run: tuple[Path, dict[str, bytes]]) -> None:
    folder, images = run
    with pytest.raises(DataError, match=r"picture test/\d+: cannot be decoded"):
        write_report(folder, images=dict.fromkeys(images, b"not a picture"))


def test_the_same_run_gives_the_same_page(run: tuple[Path, dict[str, bytes]]) -> None:
    folder, images = run
    first = write_report(folder, images=images, attention=looking()).read_bytes()
    assert write_report(folder, images=images, attention=looking()).read_bytes() == first
