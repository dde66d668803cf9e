"""From the keys of a record to the question object of a metric: one function a family.

`docs/benchmarks.md` lists the keys of each; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning_mono.benchmarks.benchmark import Item
from lightning_mono.benchmarks.pictures import Picture
from lightning_mono.benchmarks.prompts import Words
from lightning_mono.benchmarks.record import Record
from lightning_mono.data.sample import PLACEHOLDER
from lightning_mono.metrics import (
    METRICS,
    BoxQuestion,
    Captions,
    Choice,
    CircularAccuracy,
    HallusionQuestion,
    MathProblem,
    OpenQuestion,
    PairQuestion,
    Question,
    Scoring,
    YesNo,
    open_question,
)

Pictures = Sequence[Picture]


def read_item(record: Record, scored_as: str, images: Pictures) -> Item | None:
    """Make an item of a record, or note in the record what it lacks.

    Args:
        record: keys as in the project's own format.
        scored_as: a name in `METRICS`.
        images: of the record.
    """
    scoring = METRICS[scored_as]
    name = record.text("id", "give each record an id of its own")
    words = _words(record, scoring, images)
    question, answer = _FAMILIES[scoring.question](record, scoring, words, images)
    if not record.problems:
        try:
            scoring.metric.check(object.__new__(scoring.metric), question)
        except ValueError as error:
            record.problems.append(str(error))
    return None if record.problems else Item(name, words, question, tuple(images), answer)


def _words(record: Record, scoring: Scoring, images: Pictures) -> Words:
    asks = scoring.question is not Captions
    question = record.text("question", "say what is asked", default=None if asks else "")
    options = {} if scoring.question is MathProblem else record.options()
    words = Words(question, record.text("hint", default=""), options)
    places = (words.question + words.hint).count(PLACEHOLDER)
    if places not in (0, len(images)):
        record.note(
            "question",
            f"has {places} {PLACEHOLDER} for {len(images)} images; write as many, or none",
        )
    return words


def _question(record: Record, scoring: Scoring, words: Words, images: Pictures) -> Any:
    key = "answer" if record.has("answer") and not record.has("answers") else "answers"
    if record.has("answer") and record.has("answers"):
        record.note("answer", "stands beside answers; give one of the two")
    answers = record.texts(key, "give the right answer, or a list of them")
    return Question(answers, _kind(record)), _shown(answers)


def _captions(record: Record, scoring: Scoring, words: Words, images: Pictures) -> Any:
    captions = record.texts("captions", "give the reference captions of the image")
    return Captions(captions, _kind(record)), _shown(captions)


def _choice(record: Record, scoring: Scoring, words: Words, images: Pictures) -> Any:
    answer = record.text("answer", "give the letter of the right option")
    circular = issubclass(scoring.metric, CircularAccuracy)
    fix = "give the rotations of a question the same one"
    group = record.text("group", fix, default=None if circular else "")
    if not words.options:
        if circular:
            record.note("options", "is missing; rotations are of options")
        return open_question(answer, _kind(record)), answer
    shown = f"{answer}. {words.options.get(answer, '')}"
    return Choice(words.options, answer, _kind(record), group), shown


def _yes_no(record: Record, scoring: Scoring, words: Words, images: Pictures) -> Any:
    answer = record.one_of("answer", ("yes", "no"))
    image = record.text("group", "give the two questions of an image the same one")
    return YesNo(image, answer, record.text("kind", "name the subtask of MME")), answer


def _hallusion(record: Record, scoring: Scoring, words: Words, images: Pictures) -> Any:
    answer = record.one_of("answer", ("yes", "no"))
    category = record.one_of("category", ("VD", "VS"))
    names = ("subcategory", "set_id", "figure_id", "question_id")
    rest = [record.text(name, "give what HallusionBench.json says") for name in names]
    return HallusionQuestion(answer, category, *rest), answer


def _problem(record: Record, scoring: Scoring, words: Words, images: Pictures) -> Any:
    answer = record.text("answer", "give the right answer")
    kind = record.one_of("answer_type", ("text", "integer", "float", "list"))
    choices = record.texts("choices", "") if record.values.get("choices") else ()
    record.read.add("choices")
    skills = record.texts("skills", "") if record.values.get("skills") else ()
    record.read.add("skills")
    precision = record.whole("precision", 1)
    problem = MathProblem(words.question, answer, kind, choices, precision, _kind(record), skills)
    return problem, answer


def _open(record: Record, scoring: Scoring, words: Words, images: Pictures) -> Any:
    answer = record.text("answer", "give the reference")
    capabilities = record.texts("capabilities", "name what it takes: rec, ocr, know, ...")
    return OpenQuestion(words.question, answer, capabilities), answer


def _pair(record: Record, scoring: Scoring, words: Words, images: Pictures) -> Any:
    kind = _kind(record)
    if len(images) != 2:
        record.note("images", f"are {len(images)}; MIS asks about two")
        return None, ""
    return PairQuestion(words.question, (images[0].read(), images[1].read()), kind), ""


def _box(record: Record, scoring: Scoring, words: Words, images: Pictures) -> Any:
    box = record.numbers("box", 4, "write [left, top, right, bottom] in pixels")
    width, height = (record.positive(key, "give it in pixels") for key in ("width", "height"))
    return BoxQuestion((box[0], box[1], box[2], box[3]), width, height, _kind(record)), str(box)


def _kind(record: Record) -> str:
    return record.text("kind", default="")


def _shown(answers: Sequence[str]) -> str:
    """The answers without repetitions, as people gave them."""
    return " / ".join(dict.fromkeys(answers))


_FAMILIES: Mapping[type, Callable[[Record, Scoring, Words, Pictures], tuple[Any, str]]] = {
    BoxQuestion: _box,
    Captions: _captions,
    Choice: _choice,
    HallusionQuestion: _hallusion,
    MathProblem: _problem,
    OpenQuestion: _open,
    PairQuestion: _pair,
    Question: _question,
    YesNo: _yes_no,
}
