"""What came of asking: a table, JSON, and a file of samples."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_mono.benchmarks.score import Scored
from lightning_mono.checkpoints.atomic import replacing
from lightning_mono.metrics import MULTIMODAL, QUESTIONS, average

AVERAGES = {"Avg-MM": MULTIMODAL, "Avg-VQA": QUESTIONS}
"""The averages of the Mono-InternVL paper's Table 2, by the names of their scorings."""


def averages(scored: Sequence[Scored]) -> dict[str, float]:
    """Return those averages whose benchmarks are all there, once and whole."""
    quoted: dict[str, float] = {}
    names = [each.benchmark.scored_as for each in scored]
    for each in scored:
        benchmark = each.benchmark
        if benchmark.part_of is None and names.count(benchmark.scored_as) == 1:
            quoted[benchmark.scored_as] = each.quoted
    return {
        name: average(quoted, marks)
        for name, marks in AVERAGES.items()
        if all(member in quoted for member in marks)
    }


def as_json(each: Scored, folder: Path) -> dict[str, Any]:
    """One benchmark's part of results.json; what is no number is null."""
    benchmark = each.benchmark
    return {
        "benchmark": benchmark.name,
        "scoring": benchmark.scored_as,
        "headline": benchmark.scoring.headline,
        "quoted": _number(each.quoted),
        "questions": len(benchmark.items),
        "part_of": benchmark.part_of,
        "right": sum(each.right(item) for item in benchmark.items),
        "baselines": {name: _number(value) for name, value in each.baselines.items()},
        "results": {name: _number(value) for name, value in each.results.items()},
        "prompt": benchmark.prompt.template,
        "max_new_tokens": benchmark.prompt.max_new_tokens,
        "origin": benchmark.origin,
        "digest": benchmark.digest,
        "notes": list(benchmark.notes),
        "folder": str(folder),
    }


def write_samples(each: Scored, path: Path) -> None:
    """Write one JSON object a question: what was asked, what was said, what it scored."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for item in each.benchmark.items:
            record = {
                "id": item.id,
                "kind": item.question.kind,
                "prompt": each.benchmark.ask(item),
                "images": len(item.images),
                "answer": item.answer,
                "prediction": each.answers[item.id],
                "right": each.right(item),
                "scores": {name: _number(v) for name, v in each.scores[item.id].items()},
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file that appears whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def table(results: Mapping[str, Any]) -> str:
    """Write results.json for the terminal: a line a benchmark, the averages, and what to know."""
    found = results["benchmarks"]
    guesses = list(dict.fromkeys(name for each in found for name in each["baselines"]))
    rows = [["benchmark", "result", "score", *guesses, "questions"]]
    for each in found:
        beside = [_shown(each["baselines"].get(name)) for name in guesses]
        count = f"{each['questions']:,}" + ("" if each["part_of"] is None else " (part)")
        rows.append([each["benchmark"], each["headline"], _shown(each["quoted"]), *beside, count])
    for name, value in results["averages"].items():
        rows.append([name, "average", _shown(value), *[""] * len(guesses), ""])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [_aligned(row, widths) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, *_notes(found), f"samples: {results['page']}"])


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.ljust(width) if column < 2 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _notes(found: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for each in found:
        if each["part_of"] is not None:
            whole = f"the first {each['questions']:,} of {each['part_of']:,} questions"
            lines.append(f"{each['benchmark']}: a part, {whole}; its figures are of that part.")
        lines += [f"{each['benchmark']}: {note}" for note in each["notes"]]
    return lines


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
