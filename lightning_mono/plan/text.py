"""A plan as text, about a hundred columns wide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from textwrap import fill

from lightning_mono.plan.memory import APART, Memory
from lightning_mono.plan.planner import GIB, Plan

WIDTH = 100

COUNTS = ((1e12, "T"), (1e9, "B"), (1e6, "M"))


def table(plan: Plan) -> str:
    """All of a plan."""
    parts = [
        _head(plan),
        _parameters(plan),
        _stages(plan),
        _memory(plan),
        _hours(plan),
        _notes(plan),
    ]
    return "\n\n".join(parts)


def _head(plan: Plan) -> str:
    decoder, setup = plan.config.decoder, plan.setup
    model = (
        f"{decoder.family}: {decoder.layers} layers of {decoder.hidden_size}, "
        f"{decoder.heads} query heads on {decoder.kv_heads} key-value heads, "
        f"FFN {decoder.ffn_size}, {decoder.vocab_size:,} words"
    )
    devices = f"{setup.devices} device{'s' if setup.devices > 1 else ''}"
    run = [f"{setup.strategy} on {devices}", plan.precision, setup.optimizer]
    run += [f"text weights in {setup.quantize}"] if setup.quantize != "none" else []
    run += ["activation checkpointing"] if setup.checkpointing else []
    return f"{plan.recipe}\n  {model}\n  {', '.join(run)}"


def _parameters(plan: Plan) -> str:
    names = [stage.name for stage in plan.stages]
    rows = []
    for group, numbers in plan.parameters.items():
        learns = ["trains" if group in stage.train else "." for stage in plan.stages]
        rows.append([group, scaled(numbers), *learns])
    trainable = [scaled(stage.trainable) for stage in plan.stages]
    rows.append(["all, and how many train", scaled(plan.total_parameters), *trainable])
    met = f"a text token meets {scaled(plan.text_parameters)} of them"
    return f"{_grid(['PARAMETERS', 'numbers', *names], rows)}\n{met}"


def _stages(plan: Plan) -> str:
    rows = []
    for stage in plan.stages:
        batch = stage.micro_batch
        rows.append(
            [
                stage.name,
                f"{stage.steps:,}",
                scaled(stage.samples),
                scaled(stage.tokens),
                f"{batch.visual / batch.tokens:.0%}",
                f"{stage.accumulate} x {batch.rows} x {batch.length:,}",
                f"{stage.flops_per_token:.2e}",
                f"{stage.flops.total * stage.steps:.2e}",
            ]
        )
    head = ["STAGES", "steps", "samples", "tokens", "visual", "a step", "FLOP/token", "FLOP"]
    note = "a step on each device: micro-batches x rows x tokens"
    return f"{_grid(head, rows)}\n{note}"


def _memory(plan: Plan) -> str:
    kinds = [f.name for f in fields(Memory) if any(getattr(s.memory, f.name) for s in plan.stages)]
    rows = [
        [
            stage.name,
            *(f"{getattr(stage.memory, kind) / GIB:.2f}" for kind in kinds),
            f"{stage.memory.total / GIB:.2f}",
            stage.moment,
        ]
        for stage in plan.stages
    ]
    head = ["GiB A DEVICE", *kinds, "in all", "highest at"]
    apart = "its process' libraries and data" if plan.setup.device == "cpu" else "its CUDA context"
    note = f"and about {APART / GIB:.0f} for {apart}"
    return f"{_grid(head, rows)}\n{note}"


def _hours(plan: Plan) -> str:
    rows = []
    for gpu in plan.gpus:
        hours = [stage.hours(plan.rate(gpu), plan.setup.devices) for stage in plan.stages]
        cells = [
            f"{_hour(value)}{'' if plan.fits(gpu, stage) else ' *'}"
            for value, stage in zip(hours, plan.stages, strict=True)
        ]
        rows.append([gpu.name, f"{gpu.memory:.0f}", *cells, _hour(sum(hours))])
    names = [stage.name for stage in plan.stages]
    head = [f"HOURS ON {plan.setup.devices}", "GiB", *names, "in all"]
    note = f"at {plan.utilisation:.0%} of their peak; * does not fit into the memory"
    return f"{_grid(head, rows)}\n{note}"


def _notes(plan: Plan) -> str:
    return "\n".join(
        fill(note, WIDTH, initial_indent="- ", subsequent_indent="  ") for note in plan.notes
    )


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell: names to the left, figures to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def scaled(value: float) -> str:
    """A number in three or four digits: 1.21 B, 14.2 M, 812."""
    for size, unit in COUNTS:
        if value >= size:
            shown = value / size
            return f"{shown:.{2 if shown < 10 else 1 if shown < 100 else 0}f} {unit}"
    return f"{value:,.0f}"


def _hour(value: float) -> str:
    if value < 0.01:
        return "< 0.01"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
