"""Intervals and tests are Student's, corrections Holm's, and chance alone is seldom called more."""

from __future__ import annotations

import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lightning_mono.studies.statistics import differences, holm, interval

numbers = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))


@given(st.lists(numbers, min_size=2, max_size=8).filter(lambda v: max(v) > min(v)))
def test_an_interval_is_scipys(values: list[float]) -> None:
    found = interval(values)
    low, high = stats.t.interval(0.95, len(values) - 1, fmean(values), stats.sem(values))
    assert found.half is not None
    assert found.mean - found.half == pytest.approx(low, abs=1e-9)
    assert found.mean + found.half == pytest.approx(high, abs=1e-9)


def test_one_seed_has_no_interval_and_no_test() -> None:
    assert interval([3.0]).half is None
    (found,) = differences({"a": {0: 1.0}, "b": {0: 2.0}}, "a").values()
    assert found is not None
    assert (found.interval.mean, found.p, found.adjusted) == (1.0, None, None)
    assert not found.significant


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=6))
def test_differences_are_paired_by_seed(pairs: list[tuple[float, float]]) -> None:
    arm = {seed: pair[0] for seed, pair in enumerate(pairs)}
    base = {seed: pair[1] for seed, pair in enumerate(pairs)}
    less = [a - b for a, b in pairs]
    (found,) = differences({"arm": dict(reversed(arm.items())), "base": base}, "base").values()
    assert found is not None
    assert found.interval.mean == pytest.approx(fmean(less), abs=1e-9)
    if max(less) - min(less) > 1e-6:
        expected = stats.ttest_rel([a for a, _ in pairs], [b for _, b in pairs]).pvalue
        assert found.p == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_only_seeds_that_both_have_count() -> None:
    found = differences({"base": {0: 1.0, 1: 2.0}, "arm": {1: 5.0, 2: 9.0}, "none": {}}, "base")
    assert found["arm"] is not None
    assert found["arm"].interval.mean == 3.0
    assert found["none"] is None


def test_equal_differences_leave_no_doubt() -> None:
    base = {0: 1.0, 1: 2.0, 2: 3.0}
    found = differences(
        {"base": base, "same": base, "more": {s: v + 1 for s, v in base.items()}}, "base"
    )
    assert found["same"] is not None
    assert found["same"].p == 1.0
    assert found["more"] is not None
    assert found["more"].p == 0.0


def test_holm_by_hand() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=8))
def test_a_correction_never_helps_and_keeps_the_order(values: dict[str, float]) -> None:
    adjusted = holm(values)
    assert all(values[name] <= adjusted[name] <= 1 for name in values)
    for one in values:
        for other in values:
            if values[one] < values[other]:
                assert adjusted[one] <= adjusted[other]


def test_chance_is_called_a_difference_in_one_study_of_twenty_at_most() -> None:
    """Six arms, three seeds, and nothing but noise, which a seed shares between its arms."""
    draw = random.Random(0)
    studies, wrong = 800, 0
    for _ in range(studies):
        shared = [draw.gauss(0, 2) for _ in range(3)]
        arms = {
            str(arm): {seed: shared[seed] + draw.gauss(0, 1) for seed in range(3)}
            for arm in range(7)
        }
        found = differences(arms, "0").values()
        wrong += any(one is not None and one.significant for one in found)
    assert wrong / studies <= 0.05 + 2 * (0.05 * 0.95 / studies) ** 0.5


def test_a_difference_that_seeds_agree_on_is_found() -> None:
    draw = random.Random(1)
    base = {seed: draw.gauss(0.7, 0.02) for seed in range(3)}
    arms = {"base": base, "better": {s: v + 0.05 + draw.gauss(0, 0.0005) for s, v in base.items()}}
    (found,) = differences(arms, "base").values()
    assert found is not None
    assert found.significant
