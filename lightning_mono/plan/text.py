"""A plan as text, a hundred columns wide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from textwrap import fill

from lightning_mono.plan.memory import Memory
from lightning_mono.plan.planner import GIB, Plan

WIDTH = 100

COUNTS = ((1e12, "T"), (1e9, "B"), (1e6, "M"))
OPERATIONS = ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))


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
    return "\n\n".join(parts) + "\n"


def _head(plan: Plan) -> str:
    decoder, setup = plan.config.decoder, plan.setup
    model = (
        f"{decoder.family}, {decoder.layers} layers of {decoder.hidden_size}, "
        f"{decoder.heads} heads on {decoder.kv_heads}, FFN {decoder.ffn_size}, "
        f"{decoder.vocab_size:,} words"
    )
    devices = f"{setup.devices} device{'s' if setup.devices > 1 else ''}"
    run = [setup.strategy, devices, plan.precision, setup.optimizer]
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
    rows.append(["all", scaled(plan.total_parameters), *trainable])
    return _grid(["PARAMETERS", "numbers", *names], rows)


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
                f"{batch.rows} x {batch.length:,}"
                + (f" x {stage.accumulate}" * (stage.accumulate > 1)),
                scaled(stage.flops_per_token, OPERATIONS),
                scaled(stage.flops.total * stage.steps, OPERATIONS),
            ]
        )
    head = ["STAGE", "steps", "samples", "tokens", "visual", "a device", "FLOP/token", "FLOP"]
    return _grid(head, rows)


def _memory(plan: Plan) -> str:
    kinds = [field.name for field in fields(Memory)]
    rows = [
        [
            stage.name,
            *(f"{getattr(stage.memory, kind) / GIB:.2f}" for kind in kinds),
            f"{stage.memory.total / GIB:.2f}",
        ]
        for stage in plan.stages
    ]
    return _grid(["GiB A DEVICE", *kinds, "in all"], rows)


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
    note = f"at {plan.utilisation:.0%} of the peak; * does not fit into the memory"
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


def scaled(value: float, units: Sequence[tuple[float, str]] = COUNTS) -> str:
    """A number in three or four digits: 1.21 B, 14.2 M, 812."""
    for size, unit in units:
        if value >= size:
            shown = value / size
            return f"{shown:.{2 if shown < 10 else 1 if shown < 100 else 0}f} {unit}"
    return f"{value:,.0f}"


def _hour(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
