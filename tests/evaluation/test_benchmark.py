"""Benchmarks: the right question gets the right answer whatever the batching, and honest scores."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_mono.data.sample import Exchange, Sample
from lightning_mono.errors import DataError
from lightning_mono.evaluation.benchmark import (
    Prediction,
    read_predictions,
    run_benchmark,
    score,
    write_predictions,
)


class Echo:
    """Says the picture and the question back, and remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def answer(self, items: list[tuple[tuple[bytes, ...], str]], max_new_tokens: int) -> list[str]:
        self.batches.append([question for _, question in items])
        return [f"{b''.join(images).decode()} {question}" for images, question in items]


def _samples() -> list[Sample]:
    return [
        Sample(
            id=f"test/{n}",
            images=(str(n).encode(),),
            exchanges=tuple(
                Exchange("q" * ((n * 7 + i * 3) % 11 + 1), "yes", "kind") for i in range(n % 3)
            ),
        )
        for n in range(9)
    ]


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_predictions_keep_the_order_of_the_samples(batch_size: int) -> None:
    model = Echo()
    predictions = run_benchmark(model, _samples(), batch_size=batch_size, max_new_tokens=3)
    expected = [(f"{s.id}#{i}", s.id) for s in _samples() for i in range(len(s.exchanges))]
    assert [(p.id, p.image) for p in predictions] == expected
    for p in predictions:
        assert p.prediction == f"{p.image.removeprefix('test/')} {p.question}"
        assert not p.correct
    assert max(map(len, model.batches)) <= batch_size
    lengths = [len(question) for batch in model.batches for question in batch]
    assert lengths == sorted(lengths), "questions of one length should share batches"


def test_a_model_that_drops_an_answer_is_noticed() -> None:
    class Short(Echo):
        def answer(
            self, items: list[tuple[tuple[bytes, ...], str]], max_new_tokens: int
        ) -> list[str]:
            return super().answer(items, max_new_tokens)[1:]

    with pytest.raises(ValueError, match="shorter"):
        run_benchmark(Short(), _samples(), batch_size=4, max_new_tokens=3)


def test_a_dialogue_is_refused() -> None:
    dialogue = Sample("talk/1", (b"x",), (Exchange("a?", "b"), Exchange("c?", "d")), dialogue=True)
    with pytest.raises(DataError, match="talk/1"):
        run_benchmark(Echo(), [dialogue], batch_size=4, max_new_tokens=3)


def _predictions(answers: str, said: str, kinds: str) -> list[Prediction]:
    return [
        Prediction(f"t/{i}#0", f"t/{i}", "?", kind, answer, prediction, answer == prediction)
        for i, (answer, prediction, kind) in enumerate(zip(answers, said, kinds, strict=True))
    ]


def test_scores_by_hand() -> None:
    #                   kind a: answers y y n, kind b: answers r g g g
    predictions = _predictions("yynrggg", "yyyrrgg", "aaabbbb")
    blind = _predictions("yynrggg", "nnnnggg", "aaabbbb")
    scores = score(predictions, blind)
    assert scores["questions"] == 7
    assert scores["accuracy"] == pytest.approx(5 / 7)
    assert scores["question_only_accuracy"] == pytest.approx(4 / 7)
    assert scores["majority_answer"] == "g"
    assert scores["majority_accuracy"] == pytest.approx(3 / 7)
    assert scores["kind_majority_accuracy"] == pytest.approx((2 + 3) / 7)
    assert scores["by_kind"]["a"] == pytest.approx(
        {
            "accuracy": 2 / 3,
            "majority_accuracy": 2 / 3,
            "question_only_accuracy": 1 / 3,
            "questions": 3,
        }
    )
    assert scores["by_kind"]["b"]["question_only_accuracy"] == pytest.approx(3 / 4)


def test_without_a_question_only_model_its_accuracy_is_absent() -> None:
    scores = score(_predictions("yn", "yy", "aa"))
    assert scores["question_only_accuracy"] is None
    assert scores["by_kind"]["a"]["question_only_accuracy"] is None


def test_scores_need_questions_and_the_same_ones() -> None:
    with pytest.raises(DataError, match="no questions"):
        score([])
    with pytest.raises(ValueError, match="other questions"):
        score(_predictions("yn", "yy", "aa"), _predictions("y", "y", "a"))


def test_predictions_round_trip_through_a_file(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    predictions = [
        Prediction("t/1#0", "t/1", "what \u2028 is \n this?", "k", "caf\u00e9", '"', correct=False),
        Prediction("t/2#0", "t/2", "?", "k", "\U0001f431", "\U0001f431", correct=True),
    ]
    write_predictions(path, predictions)
    assert read_predictions(path) == predictions
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.jsonl"]


def test_a_broken_predictions_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text('{"id": "t/1#0"}\n')
    with pytest.raises(DataError, match=r"predictions\.jsonl, line 1"):
        read_predictions(path)
