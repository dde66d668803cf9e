"""What a preparation left, in numbers and in words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def report(folder: Path, seconds: float) -> dict[str, Any]:
    """A prepared folder's manifest with where it lies and how long it took.

    ``skipped`` becomes one example of each fault; ``skipped.jsonl`` names all.
    """
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    with (folder / "skipped.jsonl").open(encoding="utf-8") as lines:
        examples = {skip["fault"]: skip for skip in reversed([json.loads(line) for line in lines])}
    records = manifest["samples"] + manifest["skipped_count"]
    manifest["skipped"] = [examples[fault] for fault in manifest["skipped_by_fault"]]
    return {
        "folder": str(folder),
        **manifest,
        "seconds": round(seconds, 2),
        "records_per_second": round(records / seconds, 1),
    }


def in_words(reports: Sequence[dict[str, Any]]) -> str:
    """Reports for a terminal: what is there, and what was skipped and why."""
    return "\n".join(line for each in reports for line in _lines(each))


def _lines(each: dict[str, Any]) -> list[str]:
    sizes = f"{each['images']:,} images, {each['exchanges']:,} exchanges"
    speed = f"{each['seconds']:.1f} s, {each['records_per_second']:,.0f} records/s"
    lines = [
        f"{each['folder']}: {each['samples']:,} samples ({sizes}), {each['bytes'] / 1e6:,.1f} MB; "
        f"{speed}"
    ]
    if each["skipped_count"]:
        lines.append(f"skipped {each['skipped_count']:,}; skipped.jsonl there names each")
    for skip in each["skipped"]:
        count = each["skipped_by_fault"][skip["fault"]]
        lines.append(f"{count:8,}  {skip['fault']:18} e.g. {skip['id']}: {skip['reason']}")
    return lines
