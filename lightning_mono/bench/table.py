"""A benchmark's report as a table, in Markdown that reads well as it is."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lightning_mono.bench.kernels import Measured, Report, Result

HEADER = (
    "FFN",
    "tokens",
    "visual",
    "runs",
    "kernel",
    "forward ms",
    "fwd+bwd ms",
    "x limit, fwd",
    "x limit, both",
    "x faster, both",
    "roofline, fwd",
    "roofline, both",
)
LEGEND = """\
x limit: time over that of the bare matrix products. x faster: than masked_dense. roofline: share
reached of the best that the machine's matrix product and copy allow. Text weights are frozen."""


def table(report: Report) -> str:
    """The device, a line for each kernel in each case, and what the columns mean."""
    rows = [_row(measured, result) for measured in report.cases for result in measured.results]
    lines = [heading(report), "", *grid(HEADER, rows, left=(0, 4))]
    copies = [measured.copies for measured in report.cases if measured.copies is not None]
    spent = [f"gathered spends {min(copies):.2%} to {max(copies):.2%} on copies."] if copies else []
    skipped = [f"not run: {name}: {reason}" for name, reason in report.skipped.items()]
    return "\n".join([*lines, "", LEGEND, *spent, *skipped])


def grid(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[int]
) -> list[str]:
    """Lines of a Markdown table; columns ``left`` stand to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * width for width in widths]
    lines = []
    for cells in (header, rule, *rows):
        padded = (
            cell.ljust(width) if at in left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        lines.append(f"| {' | '.join(padded)} |")
    return lines


def heading(report: Report) -> str:
    """Where and how it was measured, in one line."""
    machine = report.machine
    return (
        f"{report.device}, threads {report.threads}, {report.dtype}, torch {report.torch}: "
        f"{machine.flops / 1e9:,.0f} GFLOP/s, {machine.bytes / 1e9:,.1f} GB/s; "
        f"medians of {report.rounds} rounds, load {report.load:.1f} before"
    )


def _row(measured: Measured, result: Result) -> tuple[str, ...]:
    case = measured.case
    return (
        case.shape.name,
        f"{case.tokens:,}",
        f"{case.share:.0%}",
        f"{case.runs} x {case.visual / max(case.runs, 1):.0f}",
        result.kernel,
        f"{result.forward_s * 1e3:.2f}",
        f"{result.both_s * 1e3:.2f}",
        f"{result.forward_to_limit:.2f}",
        f"{result.both_to_limit:.2f}",
        "-" if result.both_speedup is None else f"{result.both_speedup:.2f}",
        f"{result.forward_roofline:.0%}",
        f"{result.both_roofline:.0%}",
    )
