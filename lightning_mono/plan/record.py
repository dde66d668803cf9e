"""A plan as plain data, for JSON: counts, bytes, operations and hours, without rounding."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lightning_mono.plan.planner import Plan, StagePlan


def plain(plan: Plan) -> dict[str, Any]:
    """All of a plan; memory is in bytes on one device, operations are of all devices."""
    return {
        "recipe": plan.recipe,
        "parameters": {**plan.parameters, "all": plan.total_parameters},
        "precision": plan.precision,
        "utilisation": plan.utilisation,
        "setup": {**asdict(plan.setup), "averaged": sorted(plan.setup.averaged)},
        "stages": {stage.name: _stage(plan, stage) for stage in plan.stages},
        "gpus": {gpu.name: asdict(gpu) for gpu in plan.gpus},
        "notes": list(plan.notes),
    }


def _stage(plan: Plan, stage: StagePlan) -> dict[str, Any]:
    return {
        "train": list(stage.train),
        "trainable": stage.trainable,
        "steps": stage.steps,
        "samples": stage.samples,
        "tokens": stage.tokens,
        "micro_batch": asdict(stage.micro_batch),
        "accumulate": stage.accumulate,
        "flops_per_token": stage.flops_per_token,
        "flops_per_step": {**asdict(stage.flops), "all": stage.flops.total},
        "flops": stage.flops.total * stage.steps,
        "memory": {"moment": stage.moment, **asdict(stage.memory), "all": stage.memory.total},
        "gpus": {
            gpu.name: {
                "hours": stage.hours(plan.rate(gpu), plan.setup.devices),
                "fits": plan.fits(gpu, stage),
            }
            for gpu in plan.gpus
        },
    }
