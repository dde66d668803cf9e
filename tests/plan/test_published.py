"""The published curricula: what a reader of the papers finds again in a plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_mono.plan import find_gpus, plan, table
from lightning_mono.plan.planner import Plan
from lightning_mono.recipe import load_recipe

PAGE = Path(__file__).parents[2] / "docs" / "plan.md"

CONCEPT = ("patchifier", "experts.ffn")
ATTENTION = (*CONCEPT, "attention")
EXPERTS = ("patchifier", "experts.ffn", "experts.attention")


def _plan(name: str) -> Plan:
    return plan(load_recipe(f"mono_internvl_2b/{name}"), find_gpus([]), 0.4)


@pytest.fixture(scope="module")
def evip() -> Plan:
    return _plan("evip")


@pytest.fixture(scope="module")
def evip_pp() -> Plan:
    return _plan("evip_pp")


@pytest.fixture(scope="module")
def sft() -> Plan:
    return _plan("sft_llava")


def test_sizes_are_the_papers(evip: Plan, evip_pp: Plan, sft: Plan) -> None:
    assert round(evip.total_parameters / 1e9, 1) == round(sft.total_parameters / 1e9, 1) == 3.1
    assert evip.total_parameters == sft.total_parameters
    assert round(evip.text_parameters / 1e9, 1) == 1.9  # InternLM2-1.8B, which has 1.89
    assert round(evip.parameters["experts.ffn"] / 1e9, 1) == 1.2
    more = evip_pp.total_parameters - evip.total_parameters
    assert more == evip_pp.parameters["experts.attention"]
    assert round(more / 1e6) == 302
    assert evip_pp.text_parameters == evip.text_parameters  # a text token meets no expert


def test_what_trains_in_each_stage(evip: Plan, evip_pp: Plan, sft: Plan) -> None:
    every = tuple(evip.parameters)
    assert [stage.train for stage in evip.stages] == [CONCEPT, CONCEPT, ATTENTION, every]
    assert [round(s.trainable / 1e9, 1) for s in evip.stages] == [1.2, 1.2, 1.5, 3.1]
    every = tuple(evip_pp.parameters)
    assert [stage.train for stage in evip_pp.stages] == [EXPERTS, EXPERTS, EXPERTS, every]
    assert [round(s.trainable / 1e9, 1) for s in evip_pp.stages] == [1.5, 1.5, 1.5, 3.4]
    assert [round(s.trainable / 1e9, 1) for s in sft.stages] == [3.1]


@pytest.mark.parametrize(
    ("name", "millions"),
    [("evip", [922, 258, 143, 5]), ("evip_pp", [250, 150, 150, 7]), ("sft_llava", [0.665])],
)
def test_steps_and_tokens_follow_from_samples(
    name: str, millions: list[float], request: pytest.FixtureRequest
) -> None:
    planned: Plan = request.getfixturevalue(name.removesuffix("_llava"))
    recipe = load_recipe(f"mono_internvl_2b/{name}")
    for stage, samples in zip(planned.stages, millions, strict=True):
        data = recipe.data[recipe.stages[stage.name].data]
        assert stage.samples / 1e6 == pytest.approx(samples, rel=1e-3)
        assert stage.tokens == pytest.approx(stage.samples * data.tokens_per_sample, rel=1e-6)
        assert stage.tokens == stage.steps * data.batch_size * data.sequence_length


def test_image_tokens_are_at_most_the_papers(evip: Plan) -> None:
    most = {"s1_1_concept": 1280, "s1_2_semantic": 1792, "s1_3_alignment": 3328}
    for stage in evip.stages[:3]:
        batch = stage.micro_batch
        assert 0.98 * most[stage.name] < batch.visual / batch.samples <= most[stage.name]


def test_the_plan_is_read_without_a_wide_screen(evip: Plan, evip_pp: Plan, sft: Plan) -> None:
    for planned in (evip, evip_pp, sft):
        assert max(map(len, table(planned).splitlines())) <= 110


def test_the_page_shows_what_is_printed(evip: Plan) -> None:
    printed, _, _ = table(evip).partition("\n\n- shape")  # notes say whose files are at hand
    assert printed in PAGE.read_text(encoding="utf-8")
