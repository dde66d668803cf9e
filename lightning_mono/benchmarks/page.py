"""A page of samples: what was shown, asked, said and right, in one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_mono.benchmarks.benchmark import Item
from lightning_mono.benchmarks.results import averages
from lightning_mono.benchmarks.score import Scored
from lightning_mono.checkpoints.atomic import replacing
from lightning_mono.evaluation.report.pages import environment
from lightning_mono.evaluation.report.sheet import spread
from lightning_mono.evaluation.report.svg import Picture, picture

CARDS = 4  # right answers of a kind that are shown, and as many wrong ones
KINDS = 12  # the most frequent ones are shown
LONGEST = 600  # characters of a text


@dataclass(frozen=True)
class Card:
    """One question with what was said."""

    name: str
    pictures: list[Picture]
    prompt: str
    answer: str
    prediction: str
    right: bool
    scores: str


def write_page(scored: Sequence[Scored], target: str, path: Path) -> None:
    """Write the page.

    Args:
        scored: what came of each benchmark.
        target: what the model is called.
        path: of the page.
    """
    page = (
        environment(Path(__file__).parent)
        .get_template("samples.html.j2")
        .render(
            target=target,
            sections=[_section(each) for each in scored],
            averages=averages(scored),
        )
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _section(each: Scored) -> dict[str, Any]:
    """What the page says of one benchmark."""
    benchmark = each.benchmark
    kinds: dict[str, list[Item]] = {}
    for item in benchmark.items:
        kinds.setdefault(item.question.kind, []).append(item)
    largest = sorted(kinds, key=lambda kind: -len(kinds[kind]))[:KINDS]
    headline = benchmark.scoring.headline
    return {
        "benchmark": benchmark,
        "quoted": each.quoted,
        "headline": headline,
        "baselines": each.baselines,
        "right": sum(each.right(item) for item in benchmark.items),
        "results": each.results,
        "kinds": [_kind(each, kind, kinds[kind]) for kind in largest],
        "others": len(kinds) - len(largest),
    }


def _kind(each: Scored, kind: str, items: Sequence[Item]) -> dict[str, Any]:
    """Some of the right answers to one kind of question, and of the wrong ones."""
    right = [item for item in items if each.right(item)]
    wrong = [item for item in items if not each.right(item)]
    return {
        "name": kind,
        "questions": len(items),
        "right": len(right),
        "result": each.results.get(f"{each.benchmark.scoring.headline}/{kind}"),
        "cards": [_card(each, i) for some in (right, wrong) for i in spread(some, CARDS)],
    }


def _card(each: Scored, item: Item) -> Card:
    columns = each.scores[item.id]
    graded = len(columns) > 1 or next(iter(columns.values())) not in (0.0, 1.0)
    scores = ", ".join(f"{name} {value:.2f}" for name, value in columns.items()) if graded else ""
    return Card(
        name=item.id,
        pictures=[picture(image.read(), item.id) for image in item.images],
        prompt=_short(each.benchmark.ask(item)),
        answer=_short(item.answer),
        prediction=_short(each.answers[item.id]),
        right=each.right(item),
        scores=scores,
    )


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST].rstrip() + " …"
