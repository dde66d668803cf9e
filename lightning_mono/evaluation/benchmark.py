"""Ask a model every question of a test set, and score what it says.

`run_benchmark` gives one `Prediction` a question; `score` turns them into the `test` part of a
run's metrics.json, beside the baselines that say how much of the accuracy comes from the pictures.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from lightning_mono.errors import DataError
from lightning_mono.metrics import matches, normalise

if TYPE_CHECKING:
    from lightning_mono.data.sample import Sample

UNNAMED_KIND = "other"


class Answerer(Protocol):
    """What a benchmark asks of a model."""

    def answer(self, items: list[tuple[tuple[bytes, ...], str]], max_new_tokens: int) -> list[str]:
        """Answer a batch of (encoded images, question), each in at most `max_new_tokens`."""


@dataclass(frozen=True)
class Prediction:
    """One question, its answer and what the model said."""

    id: str  # "<sample>#<number of the question in the sample>"
    image: str  # id of the sample
    question: str
    kind: str
    answer: str
    prediction: str
    correct: bool


class KindScores(TypedDict):
    """Shares between 0 and 1 for some of the questions."""

    accuracy: float
    majority_accuracy: float  # of the most frequent answer among these very questions
    question_only_accuracy: float | None  # of a model that sees no picture; None: not measured
    questions: int


class Scores(KindScores):
    """Shares between 0 and 1 for a whole test set, and for each kind of question."""

    majority_answer: str
    kind_majority_accuracy: float  # of the most frequent answer to each kind of question
    by_kind: dict[str, KindScores]


def run_benchmark(
    model: Answerer, samples: Iterable[Sample], *, batch_size: int, max_new_tokens: int
) -> list[Prediction]:
    """Ask every question of the samples.

    Questions of similar length share a batch. The predictions come in the order of the samples,
    whatever the batch size. For a question-only baseline pass samples without images.

    Args:
        model: the model under test.
        samples: the test set; samples without exchanges add nothing.
        batch_size: questions in a batch.
        max_new_tokens: the longest answer, in tokens.

    Raises:
        DataError: a sample is a dialogue, whose questions cannot be asked each alone.
    """
    samples = list(samples)
    for sample in samples:
        if sample.dialogue or sample.text:
            raise DataError(
                f"benchmark: {sample.id} is not a picture with independent questions; leave its "
                "source out of the test set"
            )
    asked = [
        (sample.images, f"{sample.id}#{number}", sample.id, exchange)
        for sample in samples
        for number, exchange in enumerate(sample.exchanges)
    ]
    lengths = [(len(images), len(exchange.question)) for images, _, _, exchange in asked]
    said: dict[int, str] = {}
    for rows in batches(lengths, batch_size):
        items = [(asked[row][0], asked[row][3].question) for row in rows]
        said.update(zip(rows, model.answer(items, max_new_tokens), strict=True))
    return [
        Prediction(
            id=identity,
            image=image,
            question=exchange.question,
            kind=exchange.kind or UNNAMED_KIND,
            answer=exchange.answer,
            prediction=said[row],
            correct=matches(said[row], exchange.answer),
        )
        for row, (_, identity, image, exchange) in enumerate(asked)
    ]


def batches(lengths: Sequence[Any], size: int) -> list[list[int]]:
    """Put places of similar length together, `size` at a time; the last batch may be smaller.

    It depends on the lengths and on nothing else, so that whoever deals the batches out, they are
    the same batches.

    >>> batches([30, 10, 20], 2)
    [[1, 2], [0]]
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[start : start + size] for start in range(0, len(order), size)]


def score(
    predictions: Sequence[Prediction], question_only: Sequence[Prediction] | None = None
) -> Scores:
    """Score predictions beside the baselines that need no eyes.

    Args:
        predictions: of the model under test.
        question_only: of a model that saw the same questions without their pictures.

    Raises:
        DataError: there is nothing to score.
        ValueError: the two lists are not about the same questions.
    """
    if not predictions:
        raise DataError("benchmark: the test set holds no questions; check its source and split")
    if question_only is not None and {p.id for p in question_only} != {p.id for p in predictions}:
        raise ValueError("the question-only predictions are about other questions")
    tallies: dict[str, Counter[str]] = {}  # how often each answer is right, by kind of question
    for p in predictions:
        tallies.setdefault(p.kind, Counter())[normalise(p.answer)] += 1
    right = _correct(predictions)
    blind = None if question_only is None else _correct(question_only)
    by_kind = {
        kind: KindScores(
            accuracy=right[kind] / tally.total(),
            majority_accuracy=max(tally.values()) / tally.total(),
            question_only_accuracy=None if blind is None else blind[kind] / tally.total(),
            questions=tally.total(),
        )
        for kind, tally in tallies.items()
    }
    total = len(predictions)
    ((majority, count),) = sum(tallies.values(), Counter[str]()).most_common(1)
    return Scores(
        accuracy=sum(right.values()) / total,
        question_only_accuracy=None if blind is None else sum(blind.values()) / total,
        majority_accuracy=count / total,
        majority_answer=majority,
        kind_majority_accuracy=sum(max(tally.values()) for tally in tallies.values()) / total,
        questions=total,
        by_kind=by_kind,
    )


def _correct(predictions: Sequence[Prediction]) -> Counter[str]:
    """Count right predictions by kind of question."""
    return Counter(p.kind for p in predictions if matches(p.prediction, p.answer))


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write one JSON object a line. The file appears whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as file:
        for prediction in predictions:
            file.write(json.dumps(asdict(prediction), ensure_ascii=False) + "\n")
    os.replace(partial, path)


def read_predictions(path: Path) -> list[Prediction]:
    """Read what `write_predictions` wrote.

    Raises:
        DataError: a line is not a prediction.
    """
    predictions = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                predictions.append(Prediction(**json.loads(line)))
            except (TypeError, ValueError) as error:
                raise DataError(f"{path}, line {number}: not a prediction; run it again") from error
    return predictions
