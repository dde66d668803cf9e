"""What a recipe's stages mean on the model and the data at hand."""

from __future__ import annotations

import pytest

from lightning_mono.build import check_on_meta
from lightning_mono.errors import RecipeError
from lightning_mono.params import GROUPS
from lightning_mono.recipe import Recipe, build_stages, merged_optim
from lightning_mono.stages import Duration, StageSchedule
from lightning_mono.testing import tiny_recipe


def _built(recipe: Recipe) -> StageSchedule:
    return build_stages(recipe, GROUPS, lambda name, duration: int(duration.value))


def test_a_stage_changes_single_keys_of_the_optimizer() -> None:
    recipe = tiny_recipe("stages.second.optim.lr=0.5", "stages.second.optim.betas=[0.8,0.9]")
    first, second = merged_optim(recipe, "first"), merged_optim(recipe, "second")
    assert (first.lr, first.betas, first.warmup_steps) == (1e-3, (0.9, 0.95), 2)
    assert (second.lr, second.betas, second.warmup_steps) == (0.5, (0.8, 0.9), 2)


def test_stages_keep_their_order_and_words_become_groups() -> None:
    schedule = _built(tiny_recipe())
    assert [stage.name for stage in schedule.stages] == ["first", "second"]
    assert schedule.ends == [3, 7]
    assert schedule.stages[1].train == (
        "experts.ffn",
        "experts.attention",
        "experts.norms",
        "attention",
    )
    assert schedule.lr(4, "attention") == pytest.approx(0.1 * schedule.lr(4, "experts.ffn"))


def test_max_steps_stops_the_schedule_and_bends_no_curve() -> None:
    whole, cut = _built(tiny_recipe()), _built(tiny_recipe("trainer.max_steps=5"))
    assert cut.total_steps == 5
    assert [cut.lr(s, "experts.ffn") for s in range(5)] == [
        whole.lr(s, "experts.ffn") for s in range(5)
    ]


def test_durations_are_counted_on_the_stages_own_data() -> None:
    asked: list[tuple[str, Duration]] = []

    def steps_of(name: str, duration: Duration) -> int:
        asked.append((name, duration))
        return 2

    build_stages(tiny_recipe("stages.first.duration=2 epochs"), GROUPS, steps_of)
    assert asked == [("text", Duration(2, "epochs")), ("text", Duration(4, "steps"))]


def test_a_tied_head_is_refused_by_the_model() -> None:
    recipe = tiny_recipe("stages.first.train=[head]")
    with pytest.raises(RecipeError, match=r"stages\.first\.train: .*tied to the embeddings"):
        check_on_meta(recipe)


def test_experts_without_eyes_are_refused_by_the_model() -> None:
    recipe = tiny_recipe(
        "model.patchifier=null", "stages.first.train=[attention]", "stages.second.train=[experts]"
    )
    with pytest.raises(RecipeError, match=r"stages\.second\.train: .*'experts'"):
        check_on_meta(recipe)


def test_a_placement_is_checked_against_a_backbone_of_another_recipe() -> None:
    recipe = tiny_recipe(
        "model.scratch=null", "model.backbone=recipe:micro/language", "model.experts.ffn=last:99"
    )
    with pytest.raises(RecipeError, match=r"model\.experts\.ffn: 'last:99' does not fit"):
        check_on_meta(recipe)
