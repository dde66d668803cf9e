"""``lightning-mono plan``: text and JSON say the same, and obey what is changed in the recipe."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lightning_mono import cli
from lightning_mono.plan.planner import planned_model
from lightning_mono.plan.weights import weights_of
from lightning_mono.recipe import load_recipe

EVIP = "mono_internvl_2b/evip"
FROZEN_TEXT = [
    "trainer.strategy=mono_ddp",
    "stages.s1_3_alignment.train=[patchifier, experts.ffn]",
    "stages.s2_instruction.train=[patchifier, experts.ffn]",
]

Captured = pytest.CaptureFixture[str]


def _planned(capsys: Captured, *words: str) -> dict[str, Any]:
    assert cli.main(["plan", EVIP, "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_text_shows_what_json_holds(capsys: Captured) -> None:
    found = _planned(capsys, "--gpu", "h100", "a100-80")
    assert cli.main(["plan", EVIP, "--gpu", "h100", "a100-80"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == found["recipe"] == "mono_internvl_2b_evip"
    rows: dict[str, str] = {}
    for line in lines:
        name = line.split("  ")[0]
        rows[name] = rows.get(name, "") + line  # a stage has a row in several tables
    for stage, values in found["stages"].items():
        assert f" {values['steps']:,} " in rows[stage]
        assert f" {values['flops']:.2e}" in rows[stage]
        assert f" {values['memory']['all'] / 2**30:.2f} " in rows[stage]
        assert values["memory"]["moment"] in rows[stage]
    for gpu in ("H100 SXM", "A100 80GB"):
        hours = sum(stage["gpus"][gpu]["hours"] for stage in found["stages"].values())
        assert rows[gpu].split()[-1] == f"{hours:,.0f}"
    assert list(found["gpus"]) == ["H100 SXM", "A100 80GB"]


def test_what_does_not_fit_is_starred(capsys: Captured) -> None:
    found = _planned(capsys, "--gpu", "rtx4090")["stages"]
    assert cli.main(["plan", EVIP, "--gpu", "rtx4090"]) == 0
    row = next(li for li in capsys.readouterr().out.splitlines() if li.startswith("RTX 4090"))
    fits = [stage["gpus"]["RTX 4090"]["fits"] for stage in found.values()]
    assert fits == [True, True, False, False]
    assert row.count("*") == fits.count(False)


def test_devices_share_the_work_and_the_weights(capsys: Captured) -> None:
    eight, sixteen = _planned(capsys), _planned(capsys, "--gpu", "h100", "trainer.devices=16")
    assert sixteen["setup"]["devices"] == 16
    for one, other in zip(eight["stages"].values(), sixteen["stages"].values(), strict=True):
        assert (other["steps"], other["tokens"]) == (one["steps"], one["tokens"])
        assert other["flops"] == pytest.approx(one["flops"])
        assert other["micro_batch"]["rows"] * 2 == one["micro_batch"]["rows"]
        hours = (stage["gpus"]["H100 SXM"]["hours"] for stage in (one, other))
        assert next(hours) == pytest.approx(2 * next(hours))
        for kind in ("weights", "gradients", "optimizer"):
            assert other["memory"][kind] == pytest.approx(one["memory"][kind] / 2)


def test_a_strategy_changes_memory_alone(capsys: Captured) -> None:
    shared, copied = _planned(capsys), _planned(capsys, "trainer.strategy=mono_ddp")
    assert copied["parameters"] == shared["parameters"]
    for one, other in zip(shared["stages"].values(), copied["stages"].values(), strict=True):
        assert other["flops"] == one["flops"]
        for kind in ("weights", "optimizer"):
            assert other["memory"][kind] == pytest.approx(8 * one["memory"][kind])


def test_checkpointing_takes_operations_for_memory(capsys: Captured) -> None:
    lean, full = _planned(capsys), _planned(capsys, "trainer.activation_checkpointing=false")
    for one, other in zip(lean["stages"].values(), full["stages"].values(), strict=True):
        assert one["memory"]["activations"] < other["memory"]["activations"] / 2
        again = one["flops_per_step"]["recompute"]
        assert 0 < again < one["flops_per_step"]["forward"]
        assert one["flops_per_step"]["all"] == pytest.approx(other["flops_per_step"]["all"] + again)
        assert other["flops_per_step"]["recompute"] == 0


@pytest.mark.parametrize(("form", "bytes_each"), [("nf4", 0.5 + 4 / 64), ("int8", 1)])
def test_a_rounded_backbone_takes_less_and_computes_as_much(
    form: str, bytes_each: float, capsys: Captured
) -> None:
    whole = _planned(capsys, *FROZEN_TEXT)
    rounded = _planned(capsys, *FROZEN_TEXT, f"model.quantize={form}")
    config, _ = planned_model(load_recipe(EVIP))
    numbers = sum(weight.numbers for weight in weights_of(config) if weight.rounded)
    assert numbers == whole["parameters"]["ffn"] + whole["parameters"]["attention"]
    assert rounded["parameters"] == whole["parameters"]
    for one, other in zip(whole["stages"].values(), rounded["stages"].values(), strict=True):
        saved = one["memory"]["weights"] - other["memory"]["weights"]
        assert saved == pytest.approx(numbers * (4 - bytes_each), rel=1e-3)
        assert other["flops"] == one["flops"]
    assert cli.main(["plan", EVIP, *FROZEN_TEXT, f"model.quantize={form}"]) == 0
    assert f"text weights in {form}" in capsys.readouterr().out
