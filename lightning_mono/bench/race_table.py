"""A benchmark of models as a table, in Markdown that reads well as it is."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_mono.bench.names import OURS, PLAIN, TWIN
from lightning_mono.bench.profile import Operator
from lightning_mono.bench.race import Measured, Report, Result
from lightning_mono.bench.table import grid

GIB = 2**30


def race_table(report: Report) -> str:
    """The machine and the model, a line a contestant on each prompt, and what the columns mean."""
    floors = list(report.cases[0].floors)
    peaks = any(result.peak is not None for case in report.cases for result in case.results)
    header = ["tokens", "visual", "rows", "contestant", "s", "tokens/s", "x ours"]
    header += [f"of {name}" for name in floors] + ["weights + peak GiB"] * peaks
    rows = [
        _row(case, result, floors, peaks=peaks) for case in report.cases for result in case.results
    ]
    lines = [race_heading(report), "", *grid(header, rows, left=(3,)), ""]
    lines += LEGENDS[report.kind].splitlines()
    lines += [line for case in report.cases if (line := whole(report, case))]
    lines += [f"not run: {name}: {reason}" for name, reason in report.skipped.items()]
    if report.profile:
        lines += ["", *_profile(report.profile)]
    return "\n".join(lines)


def race_heading(report: Report) -> str:
    """What was measured, where and how."""
    machine = report.machine
    counts = [len(result.samples) for case in report.cases for result in case.results]
    rounds = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{counts[0]}"
    rounds += " round" if max(counts) == 1 else " rounds"
    return (
        f"{report.model}\n"
        f"{report.device}, threads {report.threads}, {report.dtype}, torch {report.torch}: "
        f"{machine.flops / 1e9:,.0f} GFLOP/s; reads {machine.reads / 1e9:,.1f} GB/s, as a "
        f"matrix-vector product {machine.vector / 1e9:,.1f}\n"
        f"medians of {rounds}, load {report.load:.1f} before"
    )


def _profile(operators: Sequence[Operator]) -> list[str]:
    """Of one turn of ours at the longest prompt."""
    rows = [[o.name, f"{o.share:.1%}", f"{o.calls:,}"] for o in operators]
    return grid(["operator, ours, longest prompt", "of its time", "calls"], rows, left=(0,))


def _row(case: Measured, result: Result, floors: list[str], *, peaks: bool) -> list[str]:
    prompt = case.prompt
    cells = [
        f"{prompt.tokens:,}",
        f"{prompt.visual:,}",
        f"{prompt.batch}",
        result.contestant,
        f"{result.seconds:.3g}",
        f"{result.tokens_per_s:,.{0 if result.tokens_per_s >= 100 else 1}f}",
        "-" if result.to_ours is None else f"{result.to_ours:.2f}",
    ]
    cells += [f"{result.reached[name]:.0%}" if result.reached else "-" for name in floors]
    return cells + [_memory(result)] * peaks


def _memory(result: Result) -> str:
    peak = result.peak
    return "-" if peak is None else f"{peak.weights / GIB:.2f} + {peak.beside / GIB:.2f}"


def whole(report: Report, case: Measured) -> str | None:
    """What the times say of all layers, where ours spares a part of the last.

    In N layers it spares as much as in a few. So it takes what all positions take, more by the
    layers, less what is spared, once; and so does our twin, whose last layer is of the same sizes.
    """
    seconds = {result.contestant: result.seconds for result in case.results}
    if OURS not in seconds or PLAIN not in seconds:
        return None
    times = report.of_layers / report.layers

    def carried(name: str) -> float:
        spared = seconds[PLAIN] - seconds[OURS] if name in (OURS, TWIN) else 0.0
        return (seconds[name] + spared) * times - spared

    ours = carried(OURS)
    others = [f"{n} {carried(n) / ours:.2f} x" for n in seconds if n not in (OURS, PLAIN)]
    return (
        f"{case.prompt.tokens:,} tokens, carried on to all {report.of_layers} layers: ours "
        f"{ours:.1f} s; {', '.join(others)}"
    )


LEGENDS = {
    "train": """\
s: of a step: forward, backward, clipping, AdamW. x ours: times our time, within rounds.
of GEMM: share of the time that the matrix products of the routed model take at the machine's best,
of gradients only those that what learns needs. GEMM, needed: without those of the last layer that
no target needs. Peak memory is beside AdamW's moments.""",
    "prefill": """\
s: from ids and pixels to the logits of the next token. x ours: times our time, within rounds.
of GEMM: share of the time that the matrix products of the routed model take at the machine's best.
GEMM, needed: without those of the last layer that no answer reads.""",
    "decode": """\
s: of one step, which makes a token in each row. x ours: times our time, within rounds.
of reads: share of the time in which weights and cache can be read, by a sum over them, or in which
the products can be computed, whichever is more. mv reads: read by matrix-vector products.""",
}
