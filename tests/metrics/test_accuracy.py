"""Exact match: what counts as the same answer, and that counts add up over batches and ranks."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_mono.metrics import ExactMatch, matches, normalise

KINDS = ("shape", "colour", "yes/no")


@pytest.mark.parametrize("said", ["Red", " red ", "red.", "RED .", "\nred"])
def test_case_space_and_full_stop_do_not_count(said: str) -> None:
    assert matches(said, "red")


@pytest.mark.parametrize("said", ["", "reddish", "a red", "red red", "not red", "r ed", "red!"])
def test_every_other_difference_counts(said: str) -> None:
    assert not matches(said, "red")


@given(st.text())
def test_upper_case_and_space_around_never_matter(text: str) -> None:
    assert matches(text, f"  {text}\t")
    assert normalise(text) == normalise(text).strip() == normalise(text).lower()


def _questions(count: int, seed: int) -> list[tuple[str, str, str]]:
    draw = random.Random(seed)
    answers = ["red", "yes", "circle"]
    return [(draw.choice(answers), draw.choice(answers), draw.choice(KINDS)) for _ in range(count)]


def _count(metric: ExactMatch, questions: list[tuple[str, str, str]]) -> None:
    metric.update(
        [said for said, _, _ in questions],
        [answer for _, answer, _ in questions],
        [kind for _, _, kind in questions],
    )


def test_shares_equal_counting_by_hand_however_the_questions_are_batched() -> None:
    questions = _questions(101, seed=3)
    metric = ExactMatch(KINDS)
    for start, end in pairwise((0, 1, 40, 100, 101)):
        _count(metric, questions[start:end])
    result = metric.compute()
    assert result["questions"] == 101
    right = [said == answer for said, answer, _ in questions]
    assert result["accuracy"].item() == pytest.approx(sum(right) / 101)
    for kind in KINDS:
        of_kind = [said == answer for said, answer, other in questions if other == kind]
        assert result[f"questions/{kind}"] == len(of_kind)
        assert result[f"accuracy/{kind}"].item() == pytest.approx(sum(of_kind) / len(of_kind))


def test_a_kind_without_questions_has_no_accuracy() -> None:
    metric = ExactMatch(KINDS)
    _count(metric, [("red", "red", "colour")])
    assert math.isnan(metric.compute()["accuracy/shape"])


def test_unknown_kinds_and_unequal_lists_are_refused() -> None:
    metric = ExactMatch(KINDS)
    with pytest.raises(ValueError, match="'size' is not one of shape, colour, yes/no"):
        metric.update(["big"], ["big"], ["size"])
    with pytest.raises(ValueError, match="shorter"):
        metric.update(["red", "blue"], ["red"], ["colour", "colour"])
    with pytest.raises(ValueError, match="each once"):
        ExactMatch(["shape", "shape"])


def _be_a_rank(rank: int, store: str) -> None:
    """One of two processes, with an uneven share of the questions."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    questions = _questions(101, seed=4)
    metric = ExactMatch(KINDS)
    _count(metric, questions[:30] if rank == 0 else questions[30:])
    together = metric.compute()
    alone = ExactMatch(KINDS, sync_on_compute=False)
    _count(alone, questions)
    for name, value in alone.compute().items():
        assert torch.equal(together[name], value), name
    torch.distributed.destroy_process_group()


def test_two_ranks_agree_with_one_process(tmp_path: Path) -> None:
    command = [sys.executable, __file__]
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for rank in ranks:
        _, errors = rank.communicate(timeout=300)
        assert rank.returncode == 0, errors.decode()


if __name__ == "__main__":
    _be_a_rank(int(sys.argv[1]), sys.argv[2])
