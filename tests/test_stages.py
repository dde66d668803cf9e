"""The schedule is a pure function of the step: nothing is remembered, so nothing can be lost."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_mono.stages import SCHEDULES, Duration, Optim, Stage, StageSchedule, schedule_factor

FIVE, TWELVE = (
    "38a64be72c607c01",
    "96201898f53e6489",
)  # fingerprints that checkpoints of version 0.1 hold
GROUPS = ("patchifier", "experts.ffn", "attention")

optims = st.builds(
    Optim,
    lr=st.floats(1e-6, 1.0),
    warmup_steps=st.integers(0, 30),
    schedule=st.sampled_from(SCHEDULES),
    min_lr_ratio=st.floats(0.0, 1.0),
    decay_share=st.floats(0.01, 1.0),
    layer_decay=st.floats(0.5, 1.0),
)
stages = st.builds(
    Stage,
    name=st.sampled_from("abc"),
    steps=st.integers(1, 40),
    train=st.sets(st.sampled_from(GROUPS), min_size=1).map(lambda s: tuple(sorted(s))),
    data=st.just("d"),
    optim=optims,
    lr_scale=st.dictionaries(st.sampled_from(GROUPS), st.floats(0.01, 1.0)),
)
schedules = st.lists(stages, min_size=1, max_size=4).map(lambda s: StageSchedule(tuple(s)))


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("300 steps", 300, "steps"),
        ("1 step", 1, "steps"),
        ("7", 7, "steps"),
        (7, 7, "steps"),
        ("900_000 samples", 900_000, "samples"),
        ("2_000_000 tokens", 2_000_000, "tokens"),
        ("  2  epochs ", 2, "epochs"),
        ("0.5 epochs", 0.5, "epochs"),
    ],
)
def test_durations_by_hand(text: str | int, value: float, unit: str) -> None:
    assert Duration.parse(text) == Duration(value, unit)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "0 steps",
        "-3 steps",
        "1.5 steps",
        "0.5 tokens",
        "3 moons",
        "_ steps",
        "9" * 400,
        "1 2 steps",
    ],
)
def test_what_is_no_duration_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="duration") as caught:
        Duration.parse(text)
    assert "\n" not in str(caught.value)


@given(schedule=schedules)
def test_starts_ends_and_index_tell_one_story(schedule: StageSchedule) -> None:
    expected = [i for i, stage in enumerate(schedule.stages) for _ in range(stage.steps)]
    assert [schedule.index_at(step) for step in range(schedule.total_steps)] == expected
    assert schedule.index_at(schedule.total_steps + 5) == len(schedule.stages) - 1
    for index, end in enumerate(schedule.ends):
        assert schedule.start(index) == (schedule.ends[index - 1] if index else 0)
        assert schedule.at(end - 1) is schedule.stages[index]


@given(schedule=schedules)
def test_rates_are_zero_for_frozen_groups_and_bounded_for_others(schedule: StageSchedule) -> None:
    for step in range(schedule.total_steps):
        stage = schedule.at(step)
        for group in GROUPS:
            rate = schedule.lr(step, group)
            peak = stage.optim.lr * stage.lr_scale.get(group, 1.0)
            if group in stage.train:
                assert 0 <= rate <= peak * (1 + 1e-9)
            else:
                assert rate == 0.0


@given(optim=optims, steps=st.integers(1, 60))
def test_warm_up_rises_then_the_schedule_holds_or_falls(optim: Optim, steps: int) -> None:
    factors = [schedule_factor(optim, step, steps) for step in range(steps)]
    warm, rest = factors[: optim.warmup_steps], factors[optim.warmup_steps :]
    assert warm == pytest.approx([(i + 1) / optim.warmup_steps for i in range(len(warm))])
    if optim.schedule == "constant":
        assert rest == [1.0] * len(rest)
        return
    if optim.schedule == "wsd":
        high = steps - math.ceil(optim.decay_share * steps)
        assert factors[optim.warmup_steps : high + 1] == [1.0] * max(
            0, high + 1 - optim.warmup_steps
        )
    assert rest == sorted(rest, reverse=True)
    assert all(optim.min_lr_ratio - 1e-9 <= factor <= 1 + 1e-9 for factor in rest)
    if rest:
        assert rest[0] == pytest.approx(1.0)


def test_cosine_by_hand() -> None:
    optim = Optim(warmup_steps=2, schedule="cosine", min_lr_ratio=0.2)
    factors = [schedule_factor(optim, step, 10) for step in (0, 1, 2, 6, 10, 99)]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 0.6, 0.2, 0.2])


@given(schedule=schedules, data=st.data())
def test_a_cut_schedule_is_the_beginning_of_the_whole(
    schedule: StageSchedule, data: st.DataObject
) -> None:
    steps = data.draw(st.integers(1, schedule.total_steps + 3))
    cut = schedule.cut(steps)
    assert cut.total_steps == min(steps, schedule.total_steps)
    for step in range(cut.total_steps):
        assert cut.at(step).name == schedule.at(step).name
        for group in GROUPS:
            assert cut.lr(step, group) == schedule.lr(step, group)
    assert cut.cut(steps) == cut
    assert schedule.cut(None) is schedule
    again = data.draw(st.integers(1, steps))
    assert cut.cut(again) == schedule.cut(again)


@given(schedule=schedules, data=st.data())
def test_a_run_that_was_cut_can_be_gone_on_with(
    schedule: StageSchedule, data: st.DataObject
) -> None:
    steps = data.draw(st.integers(1, schedule.total_steps))
    cut = schedule.cut(steps)
    for step in range(steps + 1):
        assert cut.fingerprint(step) == schedule.fingerprint(step)


@given(schedule=schedules, data=st.data())
def test_the_fingerprint_changes_exactly_with_the_past(
    schedule: StageSchedule, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(schedule.stages) - 1))
    step = data.draw(st.integers(0, schedule.total_steps))
    stage = schedule.stages[index]
    key = data.draw(st.sampled_from(["name", "data", "train", "lr", "lr_scale"]))
    changed = {
        "name": {"name": stage.name + "x"},
        "data": {"data": "other"},
        "train": {"train": (*stage.train, "norms")},
        "lr": {"optim": replace(stage.optim, lr=stage.optim.lr * 2)},
        "lr_scale": {"lr_scale": {**stage.lr_scale, "norms": 0.5}},
    }[key]
    edited = list(schedule.stages)
    edited[index] = replace(stage, **changed)
    same = StageSchedule(tuple(edited)).fingerprint(step) == schedule.fingerprint(step)
    assert same is (step <= schedule.start(index))


@given(schedule=schedules, data=st.data())
def test_another_length_matters_once_it_was_felt(
    schedule: StageSchedule, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(schedule.stages) - 1))
    step = data.draw(st.integers(0, schedule.total_steps))
    stage = schedule.stages[index]
    edited = list(schedule.stages)
    edited[index] = replace(stage, steps=stage.steps + data.draw(st.integers(1, 9)))
    same = StageSchedule(tuple(edited)).fingerprint(step) == schedule.fingerprint(step)
    if step <= schedule.start(index):
        assert same
    elif stage.optim.schedule == "constant":
        assert same is (step <= schedule.ends[index])
    elif stage.optim.schedule == "cosine":
        assert not same
    else:
        # The fingerprint may see more of a length than the rates do, but never less.
        other = StageSchedule(tuple(edited))
        done = range(schedule.start(index), min(step, schedule.ends[index]))
        felt = any(schedule.lr(s, g) != other.lr(s, g) for s in done for g in stage.train)
        assert not (same and felt)
        before_the_fall = step - 1 <= schedule.ends[index] - stage.optim.decay_steps(stage.steps)
        if before_the_fall and step <= schedule.ends[index]:
            assert same


def test_wsd_by_hand() -> None:
    """Hu et al. 2024, section 4: up, level, and down over the last part."""
    optim = Optim(warmup_steps=2, schedule="wsd", min_lr_ratio=0.2, decay_share=0.4)
    factors = [schedule_factor(optim, step, 10) for step in range(12)]
    assert factors == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0.2])


@given(schedule=schedules, data=st.data())
def test_rates_fall_with_depth_by_one_factor(schedule: StageSchedule, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, schedule.total_steps - 1))
    stage = schedule.at(step)
    rates = [schedule.lr(step, stage.train[0], below) for below in range(5)]
    assert rates[0] == schedule.lr(step, stage.train[0])
    for upper, lower in pairwise(rates):
        assert lower == pytest.approx(upper * stage.optim.layer_decay)
    assert schedule.by_layer is any(s.optim.layer_decay != 1 for s in schedule.stages)


def test_fingerprints_of_older_checkpoints_hold() -> None:
    """What was added to stages since changes nothing where it is not used."""
    stage = Stage("one", 9, ("patchifier",), "d", Optim(schedule="cosine"), {"patchifier": 0.5})
    schedule = StageSchedule((stage, replace(stage, name="two", optim=Optim())))
    assert schedule.fingerprint(5) == FIVE
    assert schedule.fingerprint(12) == TWELVE
    assert StageSchedule((replace(stage, accumulate=4),)).fingerprint(5) == FIVE
    assert StageSchedule((replace(stage, fresh=True),)).fingerprint(5) != FIVE


def test_a_schedule_needs_a_stage() -> None:
    with pytest.raises(ValueError, match="at least one stage"):
        StageSchedule(())
